"""Similarity of embedded captions and images, pooled or token by token. Needs no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from mllm.errors import FieldmarkError

Pool = Literal["mean", "max", "truncate"]
"""How a caption longer than the context is scored: mean or maximum over its sentences, or truncated."""


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """Embedded captions: S pieces (sentences, or whole captions) of L tokens each; L = 1 for pooled vectors.

    `owner_S` is the caption that each piece belongs to; `cut` is, for each caption, whether it was truncated.
    """

    vectors_SLD: np.ndarray  # noqa: N815 - shape suffix
    valid_SL: np.ndarray  # noqa: N815
    owner_S: np.ndarray  # noqa: N815
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.cut)


class Embedder(Protocol):
    """What rewards and benchmarks need of an encoder; vectors have length 1."""

    key: str  # identifies weights and preprocessing: vectors of equal keys are comparable
    scale: float  # the learned logit scale, which multiplies cosines before a softmax
    bias: float  # added after the scale (SigLIP); does not change a softmax
    pool: Pool

    def texts(self, captions: Sequence[str], *, whole: bool = False) -> EmbeddedTexts:
        """Embed captions; with `whole` long ones are truncated whatever `pool` says."""
        ...

    def images(self, files: Sequence[Path]) -> np.ndarray:
        """Embed image files: (images, P patches, D); P = 1 for pooled vectors."""
        ...


def similarity(texts: EmbeddedTexts, images_MPD: np.ndarray, pool: Pool = "mean") -> np.ndarray:  # noqa: N803
    """Return the similarity of captions and images, (captions, images), -1..1.

    For a piece and an image it is the mean over tokens of the best patch (FILIP, Yao et al. 2021, arXiv 2111.07783,
    eq. 4, text to image), which is the cosine for one token and one patch. For a caption it is the mean or the maximum
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


def softmax_scale(encoder: Embedder) -> float:
    """Return the encoder's scale. Raises FieldmarkError for NaN or a scale not above 1, which make a softmax flat."""
    if not math.isfinite(encoder.scale) or encoder.scale <= 1:
        raise FieldmarkError(f"the scorer's logit scale is {encoder.scale}: its checkpoint has no trained scale")
    return encoder.scale
