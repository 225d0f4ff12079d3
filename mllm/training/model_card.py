"""The model card of trained weights: their base, their training data, how to prompt them, and what was measured.

Written in the Hub's format (metadata on top, then Markdown); it contains no time and no machine's name.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.config import Settings
from mllm.data import manifest
from mllm.errors import FieldmarkError
from mllm.io import provenance
from mllm.io.files import atomic_write
from mllm.io.tables import markdown, percent
from mllm.metrics import stats
from mllm.models.checkpoint import Checkpoint
from mllm.models.families import Convention
from mllm.prompting import prompts
from mllm.records import Sample
from mllm.training import resume
from mllm.training.dataset import Data

CARD = "README.md"
_TAG = "fieldmark"
_ADAPTER, _FULL = "A LoRA adapter: it needs its base.", "Full weights."
_LIMITS = (
    "It was trained on images and domains as named above; on others its scores are unknown.",
    "Wrong answers sound as confident as right ones. The reasoning is text and need not be how the box was found.",
    "The numbers of boxes need the convention above; another prompt or image size changes the answers.",
    "Not for decisions about people, and never the only source where a wrong name does harm (food, medicine).",
)
_SCORES = {"eval/acc": "Acc@0.5 of generated answers", "eval/r1": "R@1 of captions in their bags"}
_ALWAYS_LISTED = {"style", "dtype", "freeze_vision", "freeze_projector", "freeze_llm", "visual_tokens"}


@dataclass(frozen=True)
class ModelFacts:
    """What a model card states.

    `base` names the original weights, `through` the checkpoint between them and this run, if any. `data` and `settings`
    are rows of two columns; `licences` counts images by licence; `validation` names what scores are measured on.
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
    validation: str = ""

    @classmethod
    def of(cls, settings: Settings, args: Any, checkpoint: Checkpoint, data: Data) -> ModelFacts:
        """Collect the facts of a run."""
        sft = not settings.rewards
        described = resume.describe(settings, args, [])
        # Listed are the settings that the run sets, and those that decide what is trained.
        listed = settings.model_fields_set - {"train", "validation", "resume"} | _ALWAYS_LISTED
        chosen = {key: value for key, value in described["settings"].items() if key in listed} | described["trl"]
        program = Path(*Path(sys.argv[0]).parts[-2:]).as_posix()  # as from the repository's root
        return cls(
            name=Path(args.output_dir).resolve().name,
            base=original_base(settings.model),
            through=settings.model,
            how="Supervised fine-tuning of a multimodal model."
            if sft
            else "GRPO (arXiv 2402.03300) with checked rewards.",
            convention=checkpoint.convention,
            command=f"accelerate launch {shlex.join([program, *sys.argv[1:]])}",
            adapter=settings.lora is not None or checkpoint.adapter is not None,
            data=_data(settings, data),
            licences=_licences(settings, data),
            settings={**chosen, "max_steps": args.max_steps, "num_train_epochs": args.num_train_epochs},
            versions=provenance.versions(),
            tags=("sft" if sft else "grpo", "visual-grounding"),
            validation=str(settings.validation) if settings.validation else "",
        )

    def write(self, folder: Path, measured: Mapping[str, float] | None = None) -> Path:
        """Write a folder's card. `measured`: metrics of a generated evaluation, whose shares get Wilson's interval."""
        measured = measured or {}
        count = int(measured.get("eval/samples", 0))
        found = []
        for key, name in _SCORES.items():
            if key in measured and count:
                low, high = stats.wilson(round(measured[key] * count), count)
                found.append(MeasuredShare(name, measured[key], low, high, count, self.validation))
        return write(folder, self, found)


@dataclass(frozen=True)
class MeasuredShare:
    """A measured share, 0..1, with its 95 % interval; `samples` answers on the data set `of`."""

    name: str
    value: float
    low: float
    high: float
    samples: int
    of: str


def write(folder: Path, facts: ModelFacts, scores: Sequence[MeasuredShare] = ()) -> Path:
    """Write the card into a checkpoint's folder, atomically."""
    with atomic_write(folder / CARD) as file:
        file.write("\n\n".join([f"---\n{_metadata(facts, scores).to_yaml()}\n---", *_sections(facts, scores)]) + "\n")
    return folder / CARD


def copy_card(source: Path, target: Path, note: str) -> None:
    """Copy the card of an adapter or checkpoint to the full model made from it, with a note on how it was made.

    Nothing is written if the source has no card written by Fieldmark (PEFT's draft states nothing).

    Raises:
        FieldmarkError: the card's metadata cannot be read.
    """
    from huggingface_hub import ModelCard

    if not (source / CARD).is_file():
        return
    try:
        card = ModelCard.load(source / CARD)
    except ValueError as error:  # the Hub's library turns YAML errors into ValueError
        raise FieldmarkError(f"{source / CARD}: its metadata cannot be read ({error}); fix or remove it") from None
    if _TAG not in (card.data.get("tags") or ()):
        return
    card.data["library_name"] = "transformers"
    body = card.text.rstrip().replace(_ADAPTER, _FULL)
    with atomic_write(target / CARD) as file:
        file.write(f"---\n{card.data.to_yaml()}\n---\n\n{body.lstrip()}\n\n## Merged\n\n{note}\n")


def _metadata(facts: ModelFacts, scores: Sequence[MeasuredShare]) -> Any:
    """Return the Hub's metadata; scores become its model index."""
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
        base_model=facts.base
        if re.fullmatch(r"[\w.-]+/[\w.-]+", facts.base) and not Path(facts.base).exists()
        else None,
        tags=[_TAG, facts.convention.family, *facts.tags],
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def _sections(facts: ModelFacts, scores: Sequence[MeasuredShare]) -> Iterable[str]:
    convention, budget = facts.convention, facts.convention.budget
    yield f"# {facts.name}"
    through = f", by way of `{facts.through}`" if facts.through not in ("", facts.base) else ""
    yield f"{facts.how} {_ADAPTER if facts.adapter else _FULL} Base: `{facts.base}`{through}."
    yield "## Prompt"
    asked = prompts.suffix(convention.prompt) or "nothing"
    rows = {
        "prompt style": f"{convention.prompt}: after the question, `{asked}`",
        "system prompt": f"`{convention.system}`" if convention.system else "none",
        "family": f"{convention.family}, which decides how boxes are written",
        "image budget": f"{budget.min_pixels} to {budget.max_pixels} pixels",
        "convention": f"version {convention.version}, in `fieldmark.json` beside the weights",
    }
    yield markdown([("", ""), *rows.items()])
    yield "```bash\nfieldmark chat THIS_FOLDER image.jpg\n```"
    yield "## Data"
    yield markdown([("", ""), *facts.data.items()])
    unknown = "The rows name no licence of their images: check their origin before you publish the weights."
    yield markdown([("licence of the images", "images"), *facts.licences.items()]) if facts.licences else unknown
    yield "## Scores"
    if scores:
        cells = [
            (one.name, percent(one.value), f"{percent(one.low)} to {percent(one.high)}", one.samples, one.of)
            for one in scores
        ]
        yield markdown([("", "%", "95 %", "n", "of"), *cells])
        yield "Measured during training, which selected the best weights by the first: expect less on other data."
    else:
        yield "Not measured. `eval/` holds the benchmarks."
    yield "## Training"
    yield f"```bash\n{facts.command}\n```"
    yield markdown([("setting", ""), *facts.settings.items()])
    yield ", ".join(f"{key} {value}" for key, value in facts.versions.items()) + "."
    yield "## Limits"
    yield "\n".join(f"- {limit}" for limit in _LIMITS)


def original_base(model: str) -> str:
    """Follow adapters and earlier runs back to the weights that the first run started from."""
    visited: set[str] = set()
    while model not in visited:
        visited.add(model)
        for file in (Path(model) / "run.json", Path(model).parent / "run.json"):
            run = json.loads(file.read_text(encoding="utf-8")) if Path(model).is_dir() and file.is_file() else {}
            if "settings" in run:
                model = run["settings"]["model"]
                break
    return model


def _data(settings: Settings, data: Data) -> dict[str, Any]:
    """Count what is trained on, with the hashes of its files and manifests."""
    samples = [row.record for row in data.train if isinstance(row.record, Sample)]
    rows: dict[str, Any] = {
        "rows trained on": len(data.train),
        "images": len({row.image for row in data.train if row.image}),
        "entities": len({sample.entity for sample in samples}),
        "domains": ", ".join(sorted({sample.domain or "not stated" for sample in samples})),
        "validation rows": len(data.validation),
    }
    for file in (*settings.train, *settings.mix):
        rows[f"`{file}`"] = f"SHA-256 {provenance.file_hash(file)}"
        if (file.parent / manifest.MANIFEST).is_file():
            rows[f"`{file.parent / manifest.MANIFEST}`"] = f"hash {manifest.read(file.parent).get('hash')}"
    return rows


def _licences(settings: Settings, data: Data) -> dict[str, int]:
    """Count images by licence, from the data sets' manifests, else from the rows."""
    licences: Counter[str] = Counter()
    for folder in dict.fromkeys(file.parent for file in settings.train):
        if (folder / manifest.MANIFEST).is_file():
            licences.update(manifest.read(folder).get("licences", {}))
    if not licences:
        kept = {row.image: row.record for row in data.train if isinstance(row.record, Sample)}
        licences.update(one.licence for one in kept.values() if one.licence)
    return dict(sorted(licences.items()))
