"""Dual encoders that say how well a caption and an image go together: CLIP and SigLIP, pooled or token by token.

Rewards and benchmarks ask the same object. Encoders are frozen, and loaded as plain modules even where the training
runs under DeepSpeed ZeRO-3, which would cut their weights up and leave empty shells. Their own logit scale (and
SigLIP's bias) comes along: a softmax over bare cosines is almost flat, and leaving the scale out is the classic bug.

Captions longer than the text tower's context are embedded sentence by sentence; what still has to be cut is counted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch.nn import functional

from mllm.captions import sentences
from mllm.errors import ConfigError, FieldmarkError, UnknownNameError
from mllm.io.images import open_image
from mllm.models.builtin import clip_folder
from mllm.models.embedding_cache import EmbeddingStore

logger = logging.getLogger(__name__)

Pool = Literal["mean", "max", "truncate"]
"""What is done with a caption that does not fit: the mean or the best of its sentences' similarities; or it is cut."""
POCKET = {"pocket": "scorer", "pocket-judge": "judge"}
"""Names that stand for the committed encoders of the pocket world."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Texts:
    """Captions as vectors. S pieces (sentences, or whole captions) of L tokens each, L = 1 where they are pooled.

    `owner_S` says whose piece each is; `cut` of each caption whether some of it was left out.
    """

    vectors_SLD: np.ndarray  # noqa: N815 - shape suffix
    valid_SL: np.ndarray  # noqa: N815
    owner_S: np.ndarray  # noqa: N815
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.cut)


class Embedder(Protocol):
    """What rewards and benchmarks ask of an encoder; vectors have length 1."""

    key: str
    """Names weights and preprocessing: vectors of equal keys can be compared."""
    scale: float
    """What cosines are multiplied with before a softmax: the encoder's own, learned with it."""
    bias: float
    """What is added after the scale (SigLIP); changes no softmax."""
    pool: Pool

    def texts(self, captions: Sequence[str]) -> Texts:
        """Embed captions."""
        ...

    def images(self, files: Sequence[Path]) -> np.ndarray:
        """Embed image files: (images, P patches, D), P = 1 where they are pooled."""
        ...


def similarity(texts: Texts, images_MPD: np.ndarray, pool: Pool = "mean") -> np.ndarray:  # noqa: N803
    """Similarity of captions and images, (captions, images), -1..1.

    Of a piece and an image it is the mean over tokens of the best patch, FILIP's (Yao et al. 2021, arXiv 2111.07783,
    eq. 4, text to image); with one token and one patch that is the cosine. Of a caption it is the mean or the maximum
    over its pieces.
    """
    count, patches, width = images_MPD.shape
    flat = images_MPD.reshape(count * patches, width)
    result = np.full((len(texts), count), -np.inf if pool == "max" else 0.0)
    pieces = np.bincount(texts.owner_S, minlength=len(texts))
    for vectors_LD, valid_L, owner in zip(texts.vectors_SLD, texts.valid_SL, texts.owner_S, strict=True):
        best_LM = (vectors_LD[valid_L] @ flat.T).reshape(-1, count, patches).max(-1)
        one = best_LM.mean(0)
        result[owner] = np.maximum(result[owner], one) if pool == "max" else result[owner] + one / pieces[owner]
    return result


class DualEncoder:
    """CLIP or SigLIP of transformers as an `Embedder`."""

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
                "late interaction needs patches in the space of words; SigLIP's vision tower pools by attention and "
                "has none. Take a CLIP, or late: false"
            )
        self.context = int(model.config.text_config.max_position_embeddings)
        self.scale = float(model.logit_scale.exp())
        self.bias = float(model.logit_bias) if self.is_siglip else 0.0
        self.key = _key(model, image_processor, late)
        self.counts: Counter[str] = Counter()
        self._store = EmbeddingStore(cache / self.key if cache else None, self._embed([None]).shape[1:])

    def texts(self, captions: Sequence[str]) -> Texts:
        """Embed captions; see `Texts`. Counts what was split and what was cut under `counts`, and warns of cuts."""
        pieces: list[str] = []
        owner: list[int] = []
        for number, caption in enumerate(captions):
            own = [caption] if self.pool == "truncate" or self._fits(caption) else self._pieces(caption)
            self.counts["split"] += len(own) > 1
            pieces += own
            owner += [number] * len(own)
        cut = np.zeros(len(captions), bool)
        for number, piece in zip(owner, pieces, strict=True):
            cut[number] |= not self._fits(piece)
        if cut.any() and not self.counts["cut"]:
            logger.warning(
                "%d of %d captions are longer than the scorer's %d tokens and were cut (told once; counted since)",
                int(cut.sum()), len(captions), self.context,
            )  # fmt: skip
        self.counts.update(captions=len(captions), cut=int(cut.sum()))
        made = [self._embed_texts(pieces[start : start + _BATCH]) for start in range(0, len(pieces), _BATCH)]
        longest = max((vectors.shape[1] for vectors, _ in made), default=1)
        padded = [_pad(vectors, longest) for vectors, _ in made]
        valid = [_pad(mask, longest) for _, mask in made]
        return Texts(
            np.concatenate(padded) if padded else np.empty((0, 1, self._store.shape[-1]), np.float32),
            np.concatenate(valid) if valid else np.empty((0, 1), bool),
            np.array(owner, dtype=np.int64),
            cut,
        )

    def images(self, files: Sequence[Path]) -> np.ndarray:
        """Embed image files, each only once: (images, patches, D), from the cache where they are known."""
        return self._store.vectors([Path(file) for file in files], self._embed)

    def similarity(self, captions: Sequence[str], files: Sequence[Path]) -> np.ndarray:
        """Similarity of every caption with every image, -1..1."""
        return similarity(self.texts(captions), self.images(files), self.pool)

    def _fits(self, text: str) -> bool:
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= self.context

    def _pieces(self, caption: str) -> list[str]:
        """Sentences of a caption; one that does not fit is halved between words until its pieces do."""
        waiting, done = sentences(caption)[::-1], []
        while waiting:
            piece = waiting.pop()
            words = piece.split()
            if self._fits(piece) or len(words) < 2:
                done.append(piece)
            else:
                middle = len(words) // 2
                waiting += [" ".join(words[middle:]), " ".join(words[:middle])]
        return done

    @torch.inference_mode()
    def _embed_texts(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (pieces, L, D) of length 1 and which of them are real."""
        how = {"padding": "max_length", "max_length": self.context} if self.is_siglip else {"padding": True}
        words = self.tokenizer(
            list(pieces), truncation=True, return_tensors="pt", **({"max_length": self.context} | how)
        ).to(self.device)
        known = {"input_ids": words["input_ids"]}  # SigLIP was trained without a mask, on padded captions
        if not self.is_siglip:
            known["attention_mask"] = words["attention_mask"]
        if not self.late:
            vectors = self.model.get_text_features(**known).pooler_output[:, None]
            return _unit(vectors), np.ones(vectors.shape[:2], bool)
        hidden = self.model.text_model(**known).last_hidden_state
        return _unit(self.model.text_projection(hidden)), words["attention_mask"].bool().cpu().numpy()

    @torch.inference_mode()
    def _embed(self, files: Sequence[Path | None]) -> np.ndarray:
        """Vectors (images, P, D) of length 1; None stands for a blank image."""
        made = []
        for start in range(0, len(files), _BATCH):
            loaded = [self._read(file) for file in files[start : start + _BATCH]]
            pixels = torch.cat(loaded).to(self.device, self.model.dtype)
            if not self.late:
                made.append(_unit(self.model.get_image_features(pixel_values=pixels).pooler_output[:, None]))
                continue
            tower = self.model.vision_model
            patches = tower.post_layernorm(tower(pixel_values=pixels).last_hidden_state[:, 1:])
            made.append(_unit(self.model.visual_projection(patches)))
        return np.concatenate(made)

    def _read(self, file: Path | None) -> torch.Tensor:
        """Pixels (1, 3, height, width) as the vision tower wants them."""
        if file is None:
            return self._blank()
        return self.image_processor(open_image(file), return_tensors="pt")["pixel_values"]

    def _blank(self) -> torch.Tensor:
        side = int(self.model.config.vision_config.image_size)
        return torch.zeros(1, 3, side, side)


def load(
    name: str, *, late: bool = False, pool: str = "mean", cache: str | None = None, device: str | None = None
) -> DualEncoder:
    """Load a frozen encoder, once in each process.

    Args:
        name: `pocket`, `pocket-judge`, a folder, or a name on the Hub; a CLIP or SigLIP of transformers.
        late: compare tokens with patches (FILIP) instead of pooled vectors. Means something only for encoders trained
            for it, as the pocket ones are.
        pool: what is done with captions that do not fit, see `Pool`.
        cache: folder that keeps the images' vectors. None keeps them in memory.
        device: None is this process's GPU where there is one, else the CPU.

    Raises:
        FieldmarkError: no such folder, another architecture, weights that cannot be read.
    """
    if pool not in get_args(Pool):
        raise ConfigError(f"pool must be one of {', '.join(get_args(Pool))}, got {pool!r}")
    return _load(name, late, pool, cache, device or ("cuda" if torch.cuda.is_available() else "cpu"))


@lru_cache(maxsize=8)
def _load(name: str, late: bool, pool: Any, cache: str | None, device: str) -> DualEncoder:
    from transformers import AutoConfig, AutoTokenizer, CLIPModel, SiglipModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    kinds = {"clip": (CLIPModel, CLIPImageProcessorPil), "siglip": (SiglipModel, SiglipImageProcessorPil)}
    folder = _folder(name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.model_type not in kinds:
            raise UnknownNameError(f"dual encoder type of {name}", config.model_type, kinds)
        model_class, processor_class = kinds[config.model_type]
        with outside_deepspeed():
            model = model_class.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        image_processor = processor_class.from_pretrained(folder)
    except OSError as error:
        raise FieldmarkError(f"{name}: no encoder that can be read: {error}") from error
    empty = [parameter for parameter, value in model.named_parameters() if value.numel() == 0]
    if empty:
        raise FieldmarkError(
            f"{name}: {len(empty)} weights are empty shells ({empty[0]}, ...): DeepSpeed cut the scorer up; load it "
            "before the trainer, or report this"
        )
    return DualEncoder(
        model, tokenizer, image_processor, late=late, pool=pool, cache=Path(cache) if cache else None, device=device
    )


@contextmanager
def outside_deepspeed() -> Iterator[None]:
    """Hide a live DeepSpeed configuration while the block runs: models loaded in it are whole in every process."""
    from transformers.integrations import deepspeed

    live = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = live


def _folder(name: str) -> str:
    """The folder of a name of ours; other names are folders already, or names on the Hub."""
    if name in POCKET:
        return str(clip_folder(POCKET[name]))
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise FieldmarkError(
            f"scorer {name}: no such folder (and no name of the form owner/model, pocket, pocket-judge)"
        )
    return name


def _key(model: Any, image_processor: Any, late: bool) -> str:
    """Hash of everything that an image's vector depends on: vision weights, preprocessing, kind of vector."""
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
    """Fill the second axis up with zeros."""
    missing = length - rows.shape[1]
    return np.pad(rows, [(0, 0), (0, missing)] + [(0, 0)] * (rows.ndim - 2)) if missing else rows


def softmax_scale(encoder: Embedder) -> float:
    """The encoder's scale, refused where it is none: NaN, or not above 1 (bare cosines make a softmax flat)."""
    if not math.isfinite(encoder.scale) or encoder.scale <= 1:
        raise FieldmarkError(f"the scorer's logit scale is {encoder.scale}: its checkpoint carries no trained one")
    return encoder.scale
