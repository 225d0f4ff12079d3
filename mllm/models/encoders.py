"""Frozen CLIP and SigLIP encoders that score how well a caption fits an image. Used by rewards and benchmarks.

Captions longer than the text tower's context are embedded sentence by sentence; truncated captions are counted.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch.nn import functional

from mllm.captions import sentences
from mllm.errors import ConfigError, FieldmarkError, UnknownNameError
from mllm.io.images import open_image
from mllm.models import loading_checks
from mllm.models.builtin import weights_folder
from mllm.models.checkpoint import device_of
from mllm.models.embedding_cache import EmbeddingStore
from mllm.models.similarity import EmbeddedTexts, Pool, similarity

logger = logging.getLogger(__name__)

POCKET = {"pocket": "scorer", "pocket-judge": "judge"}
"""Names of the committed encoders of the pocket world, and their folders."""
_BATCH = 64


class DualEncoder:
    """A CLIP or SigLIP of transformers as an `Embedder`."""

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, *, late: bool = False, pool: Pool = "mean",
        cache: Path | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.late, self.device = late, device
        self.pool: Pool = pool
        self.is_siglip = model.config.model_type == "siglip"
        if late and self.is_siglip:
            raise FieldmarkError(
                "late interaction needs patch embeddings in the text space; SigLIP's vision tower pools by attention "
                "and has none. Use a CLIP, or late: false"
            )
        self.context = int(model.config.text_config.max_position_embeddings)
        self.scale = float(model.logit_scale.exp())
        self.bias = float(model.logit_bias) if self.is_siglip else 0.0
        self.key = _key(model, image_processor, late)
        self.counts: Counter[str] = Counter()
        self._store = EmbeddingStore(cache / self.key if cache else None, self._embed([None]).shape[1:])

    def texts(self, captions: Sequence[str], *, whole: bool = False) -> EmbeddedTexts:
        """Embed captions; `whole` truncates long ones, as `pool: truncate`.

        Split and truncated captions are counted in `counts`; the first truncation is logged.
        """
        pieces: list[str] = []
        owner: list[int] = []
        for number, caption in enumerate(captions):
            parts = [caption] if whole or self.pool == "truncate" or self._fits(caption) else self._pieces(caption)
            self.counts["split"] += len(parts) > 1
            pieces += parts
            owner += [number] * len(parts)
        cut = np.zeros(len(captions), bool)
        for number, piece in zip(owner, pieces, strict=True):
            cut[number] |= not self._fits(piece)
        if cut.any() and not self.counts["cut"]:
            logger.warning(
                "%d of %d captions are longer than the scorer's %d tokens and were truncated (logged once)",
                int(cut.sum()), len(captions), self.context,
            )  # fmt: skip
        self.counts.update(captions=len(captions), cut=int(cut.sum()))
        batches = [self._embed_texts(pieces[start : start + _BATCH]) for start in range(0, len(pieces), _BATCH)]
        longest = max((vectors.shape[1] for vectors, _ in batches), default=1)
        none = (np.empty((0, longest, self._store.shape[-1]), np.float32), np.empty((0, longest), bool))
        vectors, valid = (
            np.concatenate([_pad(rows, longest) for rows in parts]) for parts in zip(none, *batches, strict=True)
        )
        return EmbeddedTexts(vectors, valid, np.array(owner, dtype=np.int64), cut)

    def images(self, files: Sequence[Path]) -> np.ndarray:
        """Embed image files: (images, patches, D). Vectors in the cache are not computed again."""
        return self._store.vectors([Path(file) for file in files], self._embed)

    def similarity(self, captions: Sequence[str], files: Sequence[Path]) -> np.ndarray:
        """Return the similarity of every caption with every image, (captions, images), -1..1."""
        return similarity(self.texts(captions), self.images(files), self.pool)

    def _fits(self, text: str) -> bool:
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= self.context

    def _pieces(self, caption: str) -> list[str]:
        """Split a caption into sentences; a sentence that does not fit is halved between words until its parts fit."""
        queue, done = sentences(caption)[::-1], []
        while queue:
            piece = queue.pop()
            words = piece.split()
            if self._fits(piece) or len(words) < 2:
                done.append(piece)
            else:
                middle = len(words) // 2
                queue += [" ".join(words[middle:]), " ".join(words[:middle])]
        return done

    @torch.inference_mode()
    def _embed_texts(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (pieces, L, D) of length 1, and a mask (pieces, L) without padding."""
        padding = "max_length" if self.is_siglip else True  # SigLIP was trained on padded captions without a mask
        options = {"truncation": True, "max_length": self.context, "padding": padding, "return_tensors": "pt"}
        words = self.tokenizer(list(pieces), **options).to(self.device)
        names = ("input_ids",) if self.is_siglip else ("input_ids", "attention_mask")
        inputs = {name: words[name] for name in names}
        if not self.late:
            vectors = self.model.get_text_features(**inputs).pooler_output[:, None]
            return _unit(vectors), np.ones(vectors.shape[:2], bool)
        hidden = self.model.text_model(**inputs).last_hidden_state
        return _unit(self.model.text_projection(hidden)), words["attention_mask"].bool().cpu().numpy()

    @torch.inference_mode()
    def _embed(self, files: Sequence[Path | None]) -> np.ndarray:
        """Return vectors (images, P, D) of length 1; None is a blank image."""
        vectors = []
        for start in range(0, len(files), _BATCH):
            loaded = [self._pixels(file) for file in files[start : start + _BATCH]]
            pixels = torch.cat(loaded).to(self.device, self.model.dtype)
            if not self.late:
                vectors.append(_unit(self.model.get_image_features(pixel_values=pixels).pooler_output[:, None]))
                continue
            tower = self.model.vision_model
            patches = tower.post_layernorm(tower(pixel_values=pixels).last_hidden_state[:, 1:])
            vectors.append(_unit(self.model.visual_projection(patches)))
        return np.concatenate(vectors)

    def _pixels(self, file: Path | None) -> torch.Tensor:
        if file is None:
            side = int(self.model.config.vision_config.image_size)
            return torch.zeros(1, 3, side, side)
        return self.image_processor(open_image(file), return_tensors="pt")["pixel_values"]


def load(
    name: str, *, late: bool = False, pool: str = "mean", cache: str | None = None, device: str | None = None
) -> DualEncoder:
    """Load a frozen encoder; repeated calls return the same object.

    `name` is `pocket`, `pocket-judge`, a folder or a Hub name of a CLIP or SigLIP. `late` compares tokens with patches
    (FILIP) instead of pooled vectors, for encoders trained for it, such as the pocket ones. `cache` is a folder for the
    image vectors; None keeps them in memory. `device` None is this process's GPU if there is one, otherwise the CPU.

    Raises FieldmarkError: no such folder, an unsupported architecture, weights that cannot be read.
    """
    if pool not in get_args(Pool):
        raise ConfigError(f"pool must be one of {', '.join(get_args(Pool))}, got {pool!r}")
    here = device_of(device) if device else "cuda" if torch.cuda.is_available() else "cpu"
    return _load(name, late, pool, cache, here)


@lru_cache(maxsize=8)
def _load(name: str, late: bool, pool: Any, cache: str | None, device: str) -> DualEncoder:
    from transformers import AutoConfig, AutoTokenizer, CLIPModel, SiglipModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    kinds = {"clip": (CLIPModel, CLIPImageProcessorPil), "siglip": (SiglipModel, SiglipImageProcessorPil)}
    folder = _folder(name)
    loading_checks.check_texts(Path(folder))
    with loading_checks.one_sentence(f"{name}: not a readable encoder"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.model_type not in kinds:
            raise UnknownNameError(f"dual encoder type of {name}", config.model_type, kinds)
        model_class, processor_class = kinds[config.model_type]
        with outside_deepspeed():
            loading_checks.check_weights(Path(folder))
            model, info = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
            )
        loading_checks.check_loaded(name, info)
        loading_checks.check_tokenizer(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        image_processor = processor_class.from_pretrained(folder)
    if len(tokenizer) > (rows := config.text_config.vocab_size):
        raise FieldmarkError(
            f"{name}: the tokenizer is not the encoder's: {len(tokenizer)} tokens, embeddings of {rows}"
        )
    empty = [parameter for parameter, value in model.named_parameters() if value.numel() == 0]
    if empty:
        raise FieldmarkError(
            f"{name}: {len(empty)} weights are empty ({empty[0]}, ...) because DeepSpeed partitioned the scorer; "
            "load it before the trainer, or report this"
        )
    store = Path(cache) if cache else None
    return DualEncoder(model, tokenizer, image_processor, late=late, pool=pool, cache=store, device=device)


@contextmanager
def outside_deepspeed() -> Iterator[None]:
    """Hide an active DeepSpeed configuration, so that models loaded in the block are complete in every process."""
    from transformers.integrations import deepspeed

    active = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = active


def _folder(name: str) -> str:
    if name in POCKET:
        return str(weights_folder(POCKET[name]))
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        known = "owner/model, pocket, pocket-judge"
        raise FieldmarkError(f"scorer {name}: no such folder (and no name of the form {known})")
    return name


def _key(model: Any, image_processor: Any, late: bool) -> str:
    """Hash everything that an image vector depends on: vision weights, preprocessing, kind of vector."""
    digest = hashlib.blake2b(digest_size=12)
    settings = {k: v for k, v in image_processor.to_dict().items() if not k.startswith("_")}
    digest.update(json.dumps([settings, late, model.config.model_type], sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        if name.startswith("vis"):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def _pad(rows: np.ndarray, length: int) -> np.ndarray:
    missing = length - rows.shape[1]
    return np.pad(rows, [(0, 0), (0, missing)] + [(0, 0)] * (rows.ndim - 2)) if missing else rows
