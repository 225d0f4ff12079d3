"""A run's facts for its model cards: in `best/`, in the run's own folder, and in what is pushed to the Hub."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.config import Settings
from mllm.data import manifest
from mllm.io import provenance
from mllm.metrics import stats
from mllm.models.checkpoint import Checkpoint
from mllm.records import Sample
from mllm.training import model_card, resume
from mllm.training.dataset import Data

_SCORES = {"eval/acc": "Acc@0.5 of generated answers", "eval/r1": "R@1 of captions in their bags"}
_PAPERS = {
    "sft": "Supervised fine-tuning of a multimodal model.",
    "rl": "GRPO (arXiv 2402.03300) with checked rewards.",
}


@dataclass(frozen=True)
class Card:
    """Writes the cards of one run. `validation` names the samples that scores are measured on."""

    facts: model_card.Facts
    validation: str

    @classmethod
    def of(cls, settings: Settings, args: Any, checkpoint: Checkpoint, data: Data) -> Card:
        """Gather what a run's cards tell."""
        kind = "rl" if settings.rewards else "sft"
        told = resume.describe(settings, args, [])
        chosen = {key: value for key, value in told["settings"].items() if key in _told(settings)} | told["trl"]
        facts = model_card.Facts(
            name=Path(args.output_dir).resolve().name,
            base=beginning(settings.model),
            through=settings.model,
            how=_PAPERS[kind],
            convention=checkpoint.convention,
            command=f"accelerate launch {shlex.join([_program(), *sys.argv[1:]])}",
            adapter=settings.lora is not None or checkpoint.adapter is not None,
            data=_data(settings, data),
            licences=_licences(settings, data),
            settings={**chosen, "max_steps": args.max_steps, "num_train_epochs": args.num_train_epochs},
            versions=provenance.versions(),
            tags=("grpo" if kind == "rl" else "sft", "visual-grounding"),
        )
        return cls(facts, str(settings.validation) if settings.validation else "")

    def write(self, folder: Path, measured: Mapping[str, float] | None = None) -> Path:
        """Write a folder's card; `measured` are the numbers of a generated evaluation of these very weights."""
        return model_card.write(folder, self.facts, self._scores(measured or {}))

    def _scores(self, measured: Mapping[str, float]) -> list[model_card.Score]:
        """The shares among what was measured, each with Wilson's interval."""
        count = int(measured.get("eval/samples", 0))
        found = []
        for key, name in _SCORES.items():
            if key in measured and count:
                low, high = stats.wilson(round(measured[key] * count), count)
                found.append(model_card.Score(name, measured[key], low, high, count, self.validation))
        return found


def beginning(model: str) -> str:
    """Follow adapters and earlier runs of ours back to the weights that somebody else made."""
    passed: set[str] = set()
    while model not in passed:
        passed.add(model)
        for file in (Path(model) / "run.json", Path(model).parent / "run.json"):
            told = json.loads(file.read_text(encoding="utf-8")) if Path(model).is_dir() and file.is_file() else {}
            if "settings" in told:
                model = told["settings"]["model"]
                break
    return model


def _program() -> str:
    """The program as it is called at the root: no machine's folders are told."""
    return Path(*Path(sys.argv[0]).parts[-2:]).as_posix()


def _told(settings: Settings) -> set[str]:
    """Settings worth telling: those of the run's own and those that decide what is trained."""
    always = {"style", "dtype", "freeze_vision", "freeze_projector", "freeze_llm", "visual_tokens"}
    return {key for key in settings.model_fields_set if key not in ("train", "validation", "resume")} | always


def _data(settings: Settings, data: Data) -> dict[str, Any]:
    """Count what is trained on; say from which files, and by which manifest."""
    samples = [row.record for row in data.train if isinstance(row.record, Sample)]
    rows: dict[str, Any] = {
        "rows trained on": len(data.train),
        "images": len({row.image for row in data.train if row.image}),
        "entities": len({sample.entity for sample in samples}),
        "domains": ", ".join(sorted({sample.domain for sample in samples})),
        "rows watched": len(data.validation),
    }
    for file in (*settings.train, *settings.mix):
        rows[f"`{file}`"] = f"SHA-256 {provenance.file_hash(file)}"
        if (file.parent / manifest.MANIFEST).is_file():
            rows[f"`{file.parent / manifest.MANIFEST}`"] = f"hash {manifest.read(file.parent).get('hash')}"
    return rows


def _licences(settings: Settings, data: Data) -> dict[str, int]:
    """Count images by their terms: as the sets' manifests tell, else as the rows do."""
    terms: Counter[str] = Counter()
    for folder in dict.fromkeys(file.parent for file in settings.train):
        if (folder / manifest.MANIFEST).is_file():
            terms.update(manifest.read(folder).get("licences", {}))
    if not terms:
        kept = {row.image: row.record for row in data.train if isinstance(row.record, Sample)}
        terms.update(one.licence for one in kept.values() if one.licence)
    return dict(sorted(terms.items()))
