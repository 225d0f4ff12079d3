"""Grammar score: a classifier on a CLIP text tower that separates human captions from corrupted ones.

Cho et al. 2022 (arXiv 2205.13115) train such a head jointly with CLIP; here it has its own copy of the text tower.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_folder
from mllm.models.builtin import WEIGHTS as FOLDERS
from mllm.models.perturbations import corrupt

POCKET = "pocket"
WEIGHTS = "model.safetensors"
_BATCH = 256


class GrammarHead(nn.Module):
    """CLIP's text tower with a head: linear D to D, ReLU, linear D to 2, both without bias."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        width = int(tower.config.hidden_size)
        self.tower = tower
        self.head = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, 2, bias=False))

    def forward(self, input_ids_BL: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Return logits (B captions, 2) of corrupted and human, from the last token before the projection."""
        hidden_BLD = self.tower(input_ids=input_ids_BL, attention_mask=attention_mask_BL).last_hidden_state  # noqa: N806
        last_B = attention_mask_BL.sum(-1) - 1  # noqa: N806
        return self.head(hidden_BLD[torch.arange(len(last_B), device=last_B.device), last_B])


class Grammar:
    """A grammar head with its tokenizer."""

    def __init__(self, model: GrammarHead, tokenizer: Any, device: str = "cpu") -> None:
        self.model, self.tokenizer, self.device = model.to(device), tokenizer, device
        self.context = int(model.tower.config.max_position_embeddings)

    def logits(self, captions: Sequence[str]) -> torch.Tensor:
        """Return logits (captions, 2). Captions are truncated to the tower's context."""
        options = {"padding": True, "truncation": True, "max_length": self.context, "return_tensors": "pt"}
        words = self.tokenizer(list(captions), **options).to(self.device)
        return self.model(words["input_ids"], words["attention_mask"])

    @torch.inference_mode()
    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """Return the probability that a person wrote each caption, 0..1; 0 for an empty one."""
        self.model.eval()
        result = [0.0] * len(captions)
        nonempty = [place for place, caption in enumerate(captions) if caption.strip()]
        for start in range(0, len(nonempty), _BATCH):
            places = nonempty[start : start + _BATCH]
            human = self.logits([captions[place] for place in places]).softmax(-1)[:, 1]
            for place, value in zip(places, human.tolist(), strict=True):
                result[place] = value
        return result

    def save(self, folder: Path) -> None:
        """Save weights, the tower's configuration and the tokenizer."""
        from safetensors.torch import save_file

        weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        with atomic_folder(folder) as fresh:
            self.model.tower.config.save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)
            save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})


def from_encoder(name: str, device: str = "cpu") -> Grammar:
    """Put a new head on a copy of a dual encoder's text tower; `name` as in `mllm.models.encoders.load`."""
    from mllm.models import encoders

    encoder = encoders.load(name, device=device)
    tower = _text_model(encoder.model.config.text_config)
    tower.load_state_dict(encoder.model.text_model.state_dict())  # copies
    return Grammar(GrammarHead(tower.requires_grad_(True)), encoder.tokenizer, device)


@lru_cache(maxsize=4)
def load(name: str, device: str | None = None) -> Grammar:
    """Load a trained head: `pocket`, or a folder written by `recipes/pretrain_grammar.py`. The result is cached.

    Raises FieldmarkError: no such folder, or no weights of a head in it.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoTokenizer

    from mllm.models.encoders import outside_deepspeed

    folder = FOLDERS / "grammar" if name == POCKET else Path(name)
    if not (folder / WEIGHTS).is_file():
        makes = "`python recipes/pretrain_grammar.py` makes one"
        raise FieldmarkError(f"grammar head {name}: no {folder / WEIGHTS}; {makes}")
    with outside_deepspeed():
        model = GrammarHead(_text_model(AutoConfig.from_pretrained(folder, trust_remote_code=False)))
    weights = {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise FieldmarkError(f"{folder / WEIGHTS}: not a grammar head: {error}") from error
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Grammar(model.requires_grad_(False), tokenizer, device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _text_model(config: Any) -> Any:
    from transformers import CLIPTextModel

    config = getattr(config, "text_config", config)
    if config.model_type != "clip_text_model":
        raise FieldmarkError(f"a grammar head needs the text tower of a CLIP, not of a {config.model_type}")
    return CLIPTextModel(config)


def loss(grammar: Grammar, captions: Sequence[str], rng: random.Random, vocabulary: Sequence[str]) -> torch.Tensor:
    """Return the cross-entropy over captions and one corrupted copy of each."""
    corrupted = [corrupt(caption, rng, vocabulary)[0] for caption in captions]
    labels = torch.tensor([1] * len(captions) + [0] * len(corrupted), device=grammar.device)
    return functional.cross_entropy(grammar.logits([*captions, *corrupted]), labels)


def accuracy(
    grammar: Grammar, captions: Sequence[str], rng: random.Random, vocabulary: Sequence[str], way: str | None
) -> float:
    """Return the share classified correctly: of the captions (`way` None), or of copies corrupted in one way."""
    texts = list(captions) if way is None else [corrupt(caption, rng, vocabulary, way)[0] for caption in captions]
    human = [probability > 0.5 for probability in grammar.probabilities(texts)]
    return sum(one == (way is None) for one in human) / len(human)
