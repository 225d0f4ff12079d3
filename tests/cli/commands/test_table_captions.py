"""The plumbing of `make table-captions`: what is run, in which order, with which budget; and the table it makes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.cli.commands.table_captions import (
    ANCHORED,
    BAG_SIZES,
    CLIP,
    CURRICULUM,
    FLUENT,
    PLAIN,
    SIZES,
    SPARSE,
    TRUTH,
    VCB,
    ablation,
)
from mllm.cli.experiments.ablation import BASE, AblationRun
from mllm.cli.experiments.pipeline import Stage
from mllm.evaluation import runs
from mllm.records import Answer, Completion, load_samples
from tests.support.scenes import make_captions

TINY = ablation(
    replace(
        SIZES, train=40, validation=7, test=14, sft_steps=2, rl_steps=4, rates=("1e-5", "1e-4"), sft_rates=("1e-3",)
    )
)
FROM_VCB = f"{CURRICULUM} from {VCB}"


class KnownScores(AblationRun):
    """Runs nothing: notes the stages, and leaves behind what each program would (validation scores, captions)."""

    def __init__(self, out: Path) -> None:
        super().__init__(out, TINY, lambda text: None)
        self.stages: list[Stage] = []
        self.pipeline.run = self.note  # pyright: ignore[reportAttributeAccessIssue]

    def note(self, stages: list[Stage], jobs: int = 1) -> None:
        for stage in stages:
            self.stages.append(stage)
            flags = dict(word.split("=", 1) for word in stage.arguments if "=" in word)
            pairs = dict(zip(stage.arguments[::2], stage.arguments[1::2], strict=False))
            if "--output_dir" in flags:
                best = Path(flags["--output_dir"]) / "best"
                best.mkdir(parents=True, exist_ok=True)
                found = 0.6 if flags["--learning_rate"] == "1e-4" else 0.5
                (best / "score.json").write_text(json.dumps({"eval/r1": found}))
            elif stage.module == "mllm.data_synth.captions":
                shutil.copytree(self.out / "truth", flags["--out"])
            elif stage.module == "mllm.eval.captions":
                self.caption(Path(pairs["--out"]))
            elif stage.module == "mllm.eval.truematch":
                self.judge(Path(pairs["--captions"]).parent)

    def caption(self, out: Path) -> None:
        """Right captions, but for the plain arm, which invents a mark of every fourth."""
        file = self.out / "truth" / "test.jsonl"
        samples = load_samples(file)
        convention = {"family": "pocket", "prompt": "direct", "budget": {"min_pixels": 1, "max_pixels": 9}}
        runs.begin(out, {"model": "m", "convention": convention}, samples, file.parent)
        for sample in samples:
            text = sample.captions[0].replace(".", " and a red red blue thing." if PLAIN in out.name else ".")
            runs.append(out, Completion(sample.id, text, Answer(None, None, (), (), None)))

    def judge(self, out: Path) -> None:
        """BagCurri always hits, the others two of three."""
        _, samples, _ = runs.read(out)
        rows = [
            {"bag": str(k // 3), "image": one.id, "found": one.id, "hit": float(k % 3 > 0 or CURRICULUM in out.name)}
            for k, one in enumerate(samples)
        ]
        (out / "truematch.json").write_text(json.dumps({"matches": {str(size): rows for size in BAG_SIZES}}))


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownScores, str]:
    out = tmp_path_factory.mktemp("captions-table")
    make_captions(out / "truth", "test", families=2, size=3)
    table = KnownScores(out)
    return table, table.run()


@pytest.mark.ci
def test_every_rewarded_arm_gets_the_same_budget(info) -> None:
    stages = [stage for stage in info[0].stages if stage.module == "mllm.recipes.rl"]
    arms = [arm for arm in TINY.arms if arm.start]
    assert len(arms) == 7 and len(stages) == 7 * 4
    same = ("--max_steps=4", "--limit=14", "--num_generations=8", "--per_device_train_batch_size=112")
    for arm in arms:
        own = [stage for stage in stages if stage.name.startswith(f"{arm.name}, ")]
        assert [stage.name.split(", ", 1)[1] for stage in own] == [
            "learning rate 1e-5, seed 0", "learning rate 1e-4, seed 0", "learning rate 1e-4, seed 1",
            "learning rate 1e-4, seed 2",
        ]  # fmt: skip
        assert all(flag in stage.arguments for flag in same for stage in own)


def test_arms_learn_from_the_captions_they_are_named_after(info) -> None:
    for stage in info[0].stages:
        if stage.module.startswith("mllm.recipes"):
            (train,) = [word for word in stage.arguments if word.startswith("--train=")]
            (model,) = [word for word in stage.arguments if word.startswith("--model=")]
            which = "sparse" if SPARSE in stage.name else "vcb"
            assert train.endswith(f"/data/{which}/train.jsonl")
            if stage.module.endswith("rl"):
                assert f"MLE_{'sparse' if which == 'sparse' else 'VCB'}-" in model
                assert f"seed{stage.name[-1]}/best" in model, "a seed goes on from its own start"


def test_the_flags_are_read_by_the_recipe(info) -> None:
    from trl import GRPOConfig

    from mllm.training import arguments, run

    root = Path(__file__).resolve().parents[3]
    for arm in TINY.arms:
        if arm.start:
            stage = next(s for s in info[0].stages if s.name.startswith(f"{arm.name}, "))
            words = [*stage.arguments, "--bf16", "False", "--use_cpu", "True"]
            settings, _ = arguments.read(words, root / "recipes" / "rl.yaml", GRPOConfig)
            run.load_rewards(settings)
            grown = settings.bags is not None
            assert grown == (CURRICULUM in arm.name)
            assert not grown or settings.bags.schedule == ((1, 2), (1, 3), (1, 5), (1, 7))
            assert ("clip" in settings.rewards) == (CLIP in arm.name)
            assert ("grammar" in settings.rewards) == (FLUENT in arm.name)
            assert ("faithful" in settings.rewards) == (ANCHORED in arm.name)


def test_the_judge_comes_last_and_is_not_the_scorer(info) -> None:
    modules = [stage.module for stage in info[0].stages]
    first = modules.index("mllm.eval.captions")
    assert not any("recipes" in module for module in modules[first:])
    judged = [stage for stage in info[0].stages if stage.module == "mllm.eval.truematch"]
    assert len(judged) == 1 + 9 * 3 + 1 and all("--scorer" not in stage.arguments for stage in judged)


def test_the_table(info) -> None:
    table = info[1]
    assert (info[0].out / "table.md").read_text() == table
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    lines = {row[0]: row for row in rows}
    assert lines[BASE][1] == "-" and lines[FROM_VCB][1] == "1e-4"
    assert lines[SPARSE][2].startswith("66.7") and lines[FROM_VCB][2].startswith("100.0")
    assert lines[FROM_VCB][5].startswith("100.0") and lines[f"{PLAIN} from {VCB}"][5].startswith("66.7")
    assert lines[f"{FROM_VCB} - {PLAIN} from {VCB}"][1].startswith("+33.3")
    assert lines[TRUTH][5].startswith("100.0") and lines[TRUTH][6].startswith("100.0"), "what sets the ceiling is true"
    assert float(lines[f"{PLAIN} from {VCB}"][7]) == float(lines[FROM_VCB][7]) + 6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_real_programs_in_miniature(tmp_path: Path) -> None:
    """Data, training, captions and judgement for real, a few steps; started again, nothing is redone."""
    sizes = replace(
        SIZES, train=40, validation=7, test=7, sft_steps=2, rl_steps=2, prompts_per_step=6, completions=2,
        rates=("1e-5",), sft_rates=("1e-3",), max_new_tokens=8, seeds=(0,),
    )  # fmt: skip
    small = ablation(sizes, bags=(2, 3))
    info: list[str] = []
    table = AblationRun(tmp_path, small, info.append).run()
    assert all(f"| {arm} " in table for arm in (BASE, SPARSE, VCB, FROM_VCB))
    info.clear()
    assert AblationRun(tmp_path, small, info.append).run() == table
    assert all("done before" in line or "is kept" in line for line in info)
