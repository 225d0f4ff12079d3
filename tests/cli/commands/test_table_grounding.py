"""The plumbing of `make table-grounding`: what is run, in which order, with which budget; and the table it makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.cli.commands.table_grounding import KARL, LONG_TAIL, OURS, PLAIN, SIZES, START, ablation
from mllm.cli.experiments.ablation import Ablation, AblationRun
from mllm.cli.experiments.pipeline import Stage
from mllm.evaluation import runs
from mllm.io.jsonl import write_jsonl
from mllm.records import Answer, Completion, load_samples
from tests.support.scenes import make_data

TINY = ablation(
    replace(SIZES, train=8, validation=4, test=8, sft_steps=2, rl_steps=2, rates=("1e-5", "1e-4"), sft_rates=("1e-3",))
)


class KnownScores(AblationRun):
    """Runs nothing: notes the stages, and leaves behind what each program would (validation scores, answers)."""

    def __init__(self, out: Path, ablation: Ablation = TINY) -> None:
        super().__init__(out, ablation, lambda text: None)
        self.stages: list[Stage] = []
        self.pipeline.run = self.note  # pyright: ignore[reportAttributeAccessIssue]

    def note(self, stages: list[Stage], jobs: int = 1) -> None:
        for stage in stages:
            self.stages.append(stage)
            flags = dict(word.split("=", 1) for word in stage.arguments if "=" in word)
            if "--output_dir" in flags:
                best = Path(flags["--output_dir"]) / "best"
                best.mkdir(parents=True, exist_ok=True)
                acc = 0.6 if flags["--learning_rate"] == "1e-4" else 0.5
                (best / "score.json").write_text(json.dumps({"eval/acc": acc}))
            elif stage.module == "mllm.eval.kvg_bench":
                self.answer(stage)
            elif stage.module == "mllm.data_synth.grounding":
                self.made(Path(stage.arguments[1]))

    def made(self, data: Path) -> None:
        """Training rows about half of the entities that are asked about: the first of them often."""
        asked = load_samples(self.out / "truth" / "validation.jsonl")[:4]
        rows = [(sample, 3 if place == 0 else 1) for place, sample in enumerate(asked)]
        data.mkdir(parents=True, exist_ok=True)
        write_jsonl(data / "train.jsonl", [replace(s, id=f"{s.id}/{k}") for s, times in rows for k in range(times)])

    def answer(self, stage: Stage) -> None:
        """Answer like a model that is right about every second sample; ours about all."""
        pairs = dict(zip(stage.arguments[::2], stage.arguments[1::2], strict=True))
        file = self.out / "truth" / "validation.jsonl"
        samples = [replace(sample, seen=k < 3) for k, sample in enumerate(load_samples(file))]
        budget = {"min_pixels": 9216, "max_pixels": 55296}
        convention = {"family": "pocket", "prompt": "direct", "budget": budget, "system": None, "version": 1}
        info = {"model": "m", "style": "direct", "convention": convention, "samples": {"file": "f"}}
        runs.begin(pairs["--out"], info, samples, file.parent)
        for k, sample in enumerate(samples):
            x1, y1, x2, y2 = (
                round(100 * n) for n in (sample.boxes[0].x1, sample.boxes[0].y1, sample.boxes[0].x2, sample.boxes[0].y2)
            )
            right = k % 2 or "mastery_on" in pairs["--out"]
            text = f"<answer>({x1},{y1}),({x2},{y2})</answer>" if right else "?"
            runs.append(pairs["--out"], Completion(sample.id, text, Answer(None, None, (), (), None)))


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownScores, str]:
    out = tmp_path_factory.mktemp("grounding")
    make_data(out / "truth", train=1, validation=6)
    table = KnownScores(out)
    return table, table.run()


def test_every_trained_arm_gets_the_same_budget(summary) -> None:
    stages = [stage for stage in summary[0].stages if stage.module == "mllm.recipes.rl"]
    for arm in (PLAIN, KARL, OURS):
        own = [stage for stage in stages if stage.name.startswith(f"{arm}, ")]
        assert [stage.name.split(", ", 1)[1] for stage in own] == [
            "learning rate 1e-5, seed 0", "learning rate 1e-4, seed 0", "learning rate 1e-4, seed 1",
            "learning rate 1e-4, seed 2",
        ]  # fmt: skip
        assert all("--max_steps=2" in s.arguments and "--num_generations=8" in s.arguments for s in own)


def test_mastery_is_asked_of_the_start_before_it_is_used(summary) -> None:
    names = [stage.name for stage in summary[0].stages]
    for seed in (0, 1, 2):
        mastery = names.index(f"mastery of {START}, seed {seed}")
        start = max(k for k, name in enumerate(names) if name.startswith(START) and name.endswith(f"seed {seed}"))
        users = [k for k, name in enumerate(names) if name.startswith((KARL, OURS)) and name.endswith(f"seed {seed}")]
        assert start < mastery < min(users)
        (file,) = {word.split("=")[1] for k in users for word in summary[0].stages[k].arguments if ".file=" in word}
        assert f"--out={Path(file).parent}" in summary[0].stages[mastery].arguments


def test_the_flags_are_read_by_the_recipe(summary) -> None:
    """Every flag of every arm goes through the recipe's own reader."""
    from trl import GRPOConfig

    from mllm.training import arguments

    root = Path(__file__).resolve().parents[3]
    for arm in (PLAIN, KARL, OURS):
        stage = next(s for s in summary[0].stages if s.name.startswith(f"{arm}, "))
        words = [*stage.arguments, "--bf16", "False", "--use_cpu", "True"]
        settings, _ = arguments.read(words, root / "recipes" / "rl.yaml", GRPOConfig)
        assert (settings.advantage is not None) == (arm == OURS)
        assert ("mastery" in settings.rewards) == (arm == KARL)
        assert settings.rewards["iou"]["weight"] == (0 if arm == KARL else 1)


def test_the_table(summary) -> None:
    table = summary[1]
    assert (summary[0].out / "table.md").read_text() == table
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
    assert "50.0" in lines[PLAIN] and "100.0" in lines[OURS] and "1e-4" in lines[KARL]
    assert "+50.0" in lines[f"{OURS} - {PLAIN}"] and "+0.0" in lines[f"{KARL} - {PLAIN}"]


def test_rare_and_common_species_are_those_of_the_training_set(summary) -> None:
    table, text = summary
    head = next(line for line in text.splitlines() if line.startswith("| arm"))
    assert head.index("rare species") < head.index("common species")
    (data,) = [s for s in table.stages if s.module == "mllm.data_synth.grounding"]
    assert f"--long-tail={LONG_TAIL}" in data.arguments
    values = table.task.values(table.task.folder(PLAIN, 0))
    assert len(values["rare species"]) + len(values["common species"]) >= 4 and len(values["common species"]) >= 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_real_programs_in_miniature(tmp_path: Path) -> None:
    """Data, training, mastery, refresh and benchmark for real, two steps; started again, nothing is redone."""
    sizes = replace(
        SIZES, train=12, validation=3, test=6, sft_steps=2, rl_steps=2, prompts_per_step=2, completions=2, per_entity=1,
        rates=("1e-5",), sft_rates=("1e-3",), max_new_tokens=4, seeds=(0,),
    )  # fmt: skip
    summary: list[str] = []
    table = AblationRun(tmp_path, ablation(sizes), summary.append).run()
    assert all(f"| {arm} " in table for arm in ("base", START, PLAIN, KARL, OURS))
    assert list((tmp_path / "weights").glob("mastery_on*/mastery/step-1.outputs.jsonl"))
    summary.clear()
    assert AblationRun(tmp_path, ablation(sizes), summary.append).run() == table
    assert all("done before" in line or "is kept" in line for line in summary)
