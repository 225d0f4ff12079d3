"""The model card beside trained weights: what they start from, what they saw, how they are asked, what was measured.

Written as the Hub reads it (metadata on top, then Markdown), from facts alone; it holds no time and no machine's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.io.files import atomic_write
from mllm.io.tables import markdown, percent
from mllm.models.families import Convention
from mllm.prompting import styles

CARD = "README.md"
_TAG = "fieldmark"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LIMITS = (
    "It answers about images of the kind and the domains named above; on others its scores are not known.",
    "A wrong answer is written as surely as a right one. The reasoning is text and need not be how the box came about.",
    "Numbers in boxes only mean something with the convention above; another prompt or image size changes answers.",
    "Not for decisions about people, and not the only word where a wrong name does harm (what to eat, what to treat).",
)


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    `name` is the model's, for people; `base` the weights that somebody else made, `through` what was trained further,
    where that lies between. `data` and `settings` are rows of two columns; `licences` counts images by
    their terms.
    """

    name: str
    base: str
    how: str
    convention: Convention
    command: str
    adapter: bool = False
    through: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """One measured share of `samples` answers, 0..1, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    samples: int
    of: str


def write(folder: Path, facts: Facts, scores: Iterable[Score] = ()) -> Path:
    """Write the card into a checkpoint's folder, in one step."""
    with atomic_write(folder / CARD) as file:
        file.write(text(facts, list(scores)))
    return folder / CARD


def text(facts: Facts, scores: list[Score]) -> str:
    """Write the card."""
    return "\n\n".join([f"---\n{_metadata(facts, scores).to_yaml()}\n---", *_parts(facts, scores)]) + "\n"


def keep(source: Path, target: Path, note: str) -> None:
    """Take the card of an adapter or checkpoint over to the whole model made of it, with a sentence on how it was made.

    A folder without a card of ours leaves none (PEFT's draft says nothing).

    Raises:
        FieldmarkError: a card whose metadata cannot be read.
    """
    from huggingface_hub import ModelCard

    if not (source / CARD).is_file():
        return
    try:
        card = ModelCard.load(source / CARD)
    except ValueError as error:  # yaml's own errors are none of ours, and are ValueErrors here
        raise FieldmarkError(f"{source / CARD}: its metadata cannot be read ({error}); mend or remove it") from None
    if _TAG not in (card.data.get("tags") or ()):
        return
    card.data["library_name"] = "transformers"
    body = card.text.rstrip().replace(_ADAPTER, "Whole weights.")
    with atomic_write(target / CARD) as file:
        file.write(f"---\n{card.data.to_yaml()}\n---\n\n{body.lstrip()}\n\n## Merged\n\n{note}\n")


_ADAPTER = "A LoRA adapter: it needs its base."


def _metadata(facts: Facts, scores: list[Score]) -> Any:
    """The Hub's metadata; scores become its model index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type="validation",
            dataset_name=score.of,
            metric_type="accuracy",
            metric_name=f"{score.name} (95 % {score.low:.3f} to {score.high:.3f}, n={score.samples})",
            metric_value=round(score.value, 4),
        )
        for score in scores
    ]
    return ModelCardData(
        language="en",
        library_name="peft" if facts.adapter else "transformers",
        pipeline_tag="image-text-to-text",
        base_model=facts.base if _HUB_NAME.fullmatch(facts.base) and not Path(facts.base).exists() else None,
        tags=[_TAG, facts.convention.family, *facts.tags],
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def _parts(facts: Facts, scores: list[Score]) -> Iterable[str]:
    """Yield the card's sections."""
    convention, budget = facts.convention, facts.convention.budget
    yield f"# {facts.name}"
    way = f", by way of `{facts.through}`" if facts.through not in ("", facts.base) else ""
    yield f"{facts.how} {_ADAPTER if facts.adapter else 'Whole weights.'} Base: `{facts.base}`{way}."
    yield "## How it is asked"
    asked = styles.suffix(convention.prompt) or "nothing: the question stands alone"
    rows = {
        "prompt style": f"{convention.prompt}: after the question, `{asked}`",
        "system prompt": f"`{convention.system}`" if convention.system else "none",
        "family": f"{convention.family}, which decides on what frame boxes are written and how",
        "image budget": f"{budget.min_pixels} to {budget.max_pixels} pixels",
        "convention": f"version {convention.version}, in `fieldmark.json` beside the weights",
    }
    yield markdown([("", ""), *rows.items()])
    yield "```bash\nfieldmark chat THIS_FOLDER image.jpg\n```"
    yield "## Data"
    yield markdown([("", ""), *facts.data.items()])
    if facts.licences:
        yield markdown([("terms of the images", "images"), *facts.licences.items()])
    else:
        yield "The rows name no licence of their images: see where they come from before passing the weights on."
    yield "## Scores"
    if scores:
        cells = [
            (one.name, percent(one.value), f"{percent(one.low)} to {percent(one.high)}", one.samples, one.of)
            for one in scores
        ]
        yield markdown([("", "%", "95 %", "n", "of"), *cells])
        yield "Measured while training, which chose the best weights by the first: expect a little less on other data."
    else:
        yield "Not measured. `eval/` holds the benchmarks."
    yield "## Training"
    yield f"```bash\n{facts.command}\n```"
    yield markdown([("setting", ""), *facts.settings.items()])
    yield ", ".join(f"{key} {value}" for key, value in facts.versions.items()) + "."
    yield "## Limits"
    yield "\n".join(f"- {limit}" for limit in _LIMITS)
