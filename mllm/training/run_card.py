"""Collects a run's facts for its model cards: in `best/`, in the run's folder, and on the Hub."""

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
_ALWAYS_LISTED = {"style", "dtype", "freeze_vision", "freeze_projector", "freeze_llm", "visual_tokens"}
_PAPERS = {
    "sft": "Supervised fine-tuning of a multimodal model.",
    "rl": "GRPO (arXiv 2402.03300) with checked rewards.",
}


@dataclass(frozen=True)
class RunCard:
    """Writes the model cards of one run. `validation` names the samples that scores are measured on."""

    facts: model_card.ModelFacts
    validation: str

    @classmethod
    def of(cls, settings: Settings, args: Any, checkpoint: Checkpoint, data: Data) -> RunCard:
        """Collect what the cards of a run state."""
        kind = "rl" if settings.rewards else "sft"
        described = resume.describe(settings, args, [])
        # Listed are the settings that the run sets, and those that decide what is trained.
        listed = settings.model_fields_set - {"train", "validation", "resume"} | _ALWAYS_LISTED
        chosen = {key: value for key, value in described["settings"].items() if key in listed} | described["trl"]
        program = Path(*Path(sys.argv[0]).parts[-2:]).as_posix()  # as from the repository's root
        facts = model_card.ModelFacts(
            name=Path(args.output_dir).resolve().name,
            base=original_base(settings.model),
            through=settings.model,
            how=_PAPERS[kind],
            convention=checkpoint.convention,
            command=f"accelerate launch {shlex.join([program, *sys.argv[1:]])}",
            adapter=settings.lora is not None or checkpoint.adapter is not None,
            data=_data(settings, data),
            licences=_licences(settings, data),
            settings={**chosen, "max_steps": args.max_steps, "num_train_epochs": args.num_train_epochs},
            versions=provenance.versions(),
            tags=("grpo" if kind == "rl" else "sft", "visual-grounding"),
        )
        return cls(facts, str(settings.validation) if settings.validation else "")

    def write(self, folder: Path, measured: Mapping[str, float] | None = None) -> Path:
        """Write a folder's card; `measured` are the metrics of a generated evaluation of these weights, whose
        shares get Wilson's interval."""
        measured = measured or {}
        count = int(measured.get("eval/samples", 0))
        found = []
        for key, name in _SCORES.items():
            if key in measured and count:
                low, high = stats.wilson(round(measured[key] * count), count)
                found.append(model_card.MeasuredShare(name, measured[key], low, high, count, self.validation))
        return model_card.write(folder, self.facts, found)


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
        "domains": ", ".join(sorted({sample.domain for sample in samples})),
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
