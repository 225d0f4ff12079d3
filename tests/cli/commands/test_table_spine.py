"""The plumbing of `make table-spine`: the thoughts of each arm, what it starts from, and the flags of the recipes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mllm.boxes import Box, Frame
from mllm.cli.commands import table_credit
from mllm.cli.commands.table_spine import CHECKED, EARLY, ORACLE, SIZES, UNCHECKED, ablation, blind_share, curves_table
from mllm.cli.experiments.pipeline import Stage
from mllm.io.jsonl import write_jsonl
from mllm.io.tables import MISSING
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Answer, Completion, Sample, Thing, load_samples
from mllm.training.validation import ANSWERS
from tests.cli.commands.test_table_grounding import KnownScores
from tests.support.scenes import make_data

TINY = ablation(
    replace(SIZES, train=8, validation=4, test=8, sft_steps=2, rl_steps=4, rates=("1e-5", "1e-4"), sft_rates=("1e-3",))
)


@pytest.fixture(scope="module")
def spine(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownScores, str]:
    out = tmp_path_factory.mktemp("spine")
    make_data(out / "truth", train=1, validation=6)
    table = KnownScores(out, TINY)
    return table, table.run()


def test_each_teachers_thoughts_are_made_and_used_by_their_arms(spine: tuple[KnownScores, str]) -> None:
    stages = spine[0].stages
    made = {s.name: s.arguments for s in stages if s.module == "mllm.data_synth.grounding"}
    assert "--thought-checks=answer" in made[f"data: {UNCHECKED}"]
    assert "--teacher=pocket_fallible" in made[f"data: {CHECKED}"] and "--max-tries=1000" in made[f"data: {CHECKED}"]
    assert not any("teacher" in word for word in made[f"data: {ORACLE}"])
    folder = {UNCHECKED: "data", CHECKED: "data-checked", ORACLE: "data-oracle", "SFT": "data"}
    folder |= {"CoT-SFT continued": "data", "GRPO from CoT-SFT": "data", "GRPO from checked": "data-checked"}
    folder |= {EARLY: "data", "GRPO from best checkpoint": "data"}
    for arm in TINY.arms:
        own = [s for s in stages if s.name.startswith(f"{arm.name}, learning rate")]
        files = {word.split("=")[1] for s in own for word in s.arguments if word.startswith("--train=")}
        assert files == {str(spine[0].out / folder[arm.name] / "train.jsonl")}, arm.name
        mixed = [word for s in own for word in s.arguments if word.startswith("--mix=")]
        reasons_by_sft = arm.config == "sft"
        assert mixed == ([f"--mix={spine[0].out}/recall.jsonl"] * len(own) if reasons_by_sft else []), arm.name
    measured = [s for s in stages if s.module == "mllm.eval.kvg_bench"]
    assert len({s.arguments[s.arguments.index("--samples") + 1] for s in measured}) == 1, "one test split for all"


def test_continued_sft_reads_as_many_samples_as_grpo_reads_answers() -> None:
    arms = {arm.name: arm for arm in ablation().arms}
    grpo, more = arms["GRPO from CoT-SFT"], arms["CoT-SFT continued"]
    assert more.start == grpo.start == UNCHECKED
    assert more.steps * 16 == grpo.steps * SIZES.prompts_per_step * SIZES.completions
    assert len(more.rates) == len(grpo.rates)


def test_cot_sft_ends_after_fixed_steps_but_for_the_arm_that_keeps_its_best_checkpoint() -> None:
    arms = {arm.name: arm for arm in ablation().arms}
    last = f"--evaluate.every={SIZES.sft_steps}"
    assert {name for name, arm in arms.items() if last in arm.flags} == {UNCHECKED, CHECKED, ORACLE}
    assert arms[EARLY].flags == arms[UNCHECKED].flags[:-1] and arms[EARLY].rates == arms[UNCHECKED].rates


def test_the_flags_are_read_by_the_recipes(spine: tuple[KnownScores, str]) -> None:
    from trl import GRPOConfig, SFTConfig

    from mllm.training import arguments

    root = Path(__file__).resolve().parents[3]
    for arm in TINY.arms:
        stage = next(s for s in spine[0].stages if s.name.startswith(f"{arm.name}, learning rate"))
        kind = GRPOConfig if arm.config == "rl" else SFTConfig
        words = [*stage.arguments, "--bf16", "False", "--use_cpu", "True"]
        settings, args = arguments.read(words, root / "recipes" / f"{arm.config}.yaml", kind)
        assert args.max_steps == arm.steps and settings.style == arm.style
        if arm.config == "rl":
            assert settings.rewards["links"]["weight"] == 0 and settings.rewards["iou"]["mode"] == "hit"


def test_every_screened_setting_is_read_and_answers_as_often() -> None:
    from trl import GRPOConfig

    from mllm.training import arguments

    root, answered = Path(__file__).resolve().parents[3], set()
    arm = next(arm for arm in ablation().arms if arm.name == ablation().screened)
    for variant in ablation().variants:
        one = variant.of(arm)
        words = [f"--max_steps={one.steps}", *one.flags, "--bf16", "False", "--use_cpu", "True"]
        settings, args = arguments.read(words, root / "recipes" / "rl.yaml", GRPOConfig)
        answered.add(args.max_steps * args.per_device_train_batch_size)
        assert (settings.lora is not None) == ("LoRA" in variant.name) == bool(variant.rates)
        assert (settings.dynamic_sampling == "drop") == ("dynamic" in variant.name)
        changed = (args.beta, args.entropy_coef, args.temperature) != (0.0, 0.0, 1.0)
        assert changed == variant.name.startswith(("KL", "entropy", "temperature"))
    assert answered == {SIZES.rl_steps * SIZES.prompts_per_step * SIZES.completions}


def test_the_recipe_is_kept_where_no_setting_is_better(spine: tuple[KnownScores, str]) -> None:
    assert "as in the recipe 60.0" in spine[1] and "as in the recipe is kept" in spine[1]
    tried = {s.name for s in spine[0].stages if s.name.startswith("GRPO from CoT-SFT") and s.module.endswith("rl")}
    assert {name for name in tried if name.endswith("1e-4, seed 0")} >= {
        "GRPO from CoT-SFT, learning rate 1e-4, seed 0"
    }
    assert {"GRPO from CoT-SFT, KL 0.02, learning rate 1e-4, seed 0"} <= tried
    assert not any("KL" in name for name in tried if name.endswith(("seed 1", "seed 2")))


class BetterWithKL(KnownScores):
    """As if GRPO were better with a KL term."""

    def note(self, stages: list[Stage], jobs: int = 1) -> None:
        super().note(stages, jobs)
        for stage in (stage for stage in stages if "--beta=0.02" in stage.arguments):
            folder = next(word.split("=", 1)[1] for word in stage.arguments if word.startswith("--output_dir="))
            (Path(folder) / "best" / "score.json").write_text(json.dumps({"eval/acc": 0.9}))


def test_the_best_setting_becomes_that_of_all_arms_of_the_recipe(tmp_path: Path) -> None:
    make_data(tmp_path / "truth", train=1, validation=6)
    table = BetterWithKL(tmp_path, TINY)
    assert "KL 0.02 90.0" in table.run()
    trained = [s for s in table.stages if s.module in ("mllm.recipes.sft", "mllm.recipes.rl")]
    for stage in trained:
        if stage.name.endswith(("seed 1", "seed 2")):
            assert ("--beta=0.02" in stage.arguments) == (", KL 0.02," in stage.name) == stage.module.endswith("rl")
    measured = [s for s in table.stages if s.name.startswith("benchmark of GRPO")]
    assert len(measured) == 9 and all("KL_0.02" in s.arguments[1] for s in measured)


def test_the_table_has_lengths_and_blind_marks(spine: tuple[KnownScores, str]) -> None:
    head = next(line for line in spine[1].splitlines() if line.startswith("| arm"))
    assert "tokens per answer" in head and "blind marks seen right" in head
    assert "GRPO from CoT-SFT - CoT-SFT continued" in spine[1]


def test_blind_marks_are_those_that_the_teacher_misreads() -> None:
    things = (
        Thing("Talo ruvi", Box(0.1, 0.1, 0.3, 0.4), ("scalloped", "red", "banded", "purple cap")),
        Thing("Mira dosa", Box(0.6, 0.1, 0.9, 0.4), ("tall", "orange", "plain", "blue cap")),
    )
    sample = Sample("a", "ground", "a.png", Frame(100, 100), "bird", "Talo ruvi", "Find it.", (things[0].box,), things)
    family = families.load("pocket")

    def share(thought: str, shown: Sample = sample) -> float | None:
        text = f"<think>{thought}</think><answer>(10,10),(30,40)</answer>"
        return blind_share(shown, Completion("a", text, answers.parse(text, family, Frame(100, 100))))

    first = "1 (10,10),(30,40): round not, red fits, banded fits, blue cap not, not."
    second = "2 (60,10),(90,40): tall not, orange not, plain not, blue cap not, not."
    head = "Talo ruvi: scalloped, red, banded, purple cap."
    assert share(f"{head} {first} {second} So 1.") == 0.5
    assert share(f"{head} {second} So 2.") == 0.25, "a thing that was not looked at counts"
    assert share(f"{head} So 1 (10,10),(30,40).") == 0.0
    assert share("x", replace(sample, things=(replace(things[1], marks=("tall", "red")),))) is None


def test_curves_are_means_over_the_seeds_at_each_evaluated_step(spine: tuple[KnownScores, str]) -> None:
    run = spine[0]
    for arm in (arm for arm in TINY.arms if arm.config == "rl"):
        samples = load_samples(run.out / "truth" / "validation.jsonl")
        write_jsonl(run.task.files(arm) / "validation.jsonl", samples)
        for seed in SIZES.seeds:
            folder = run.training_folder(arm.name, seed)
            rows: list[dict[str, float]] = [{"step": 0, "eval/acc": 0.25, "eval/tokens": 40}]
            rows += [{"step": step, "rewards/links/mean": 0.1 * step + 0.2 * seed} for step in (1, 2)]
            rows[-1] |= {"eval/acc": 0.5 + 0.1 * seed, "eval/tokens": 100 + seed}
            (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            for step in (0, 2):
                done = [Completion(one.id, "?", Answer(None, None, (), (), None)) for one in samples]
                write_jsonl(folder / ANSWERS / f"step-{step}.jsonl", done)
    lines = curves_table(run).splitlines()
    assert len(lines) == 2 + 2 * 3 and (run.out / "curves.md").read_text() == "\n".join(lines) + "\n"
    first, last = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:4])
    assert first[:5] == ["GRPO from CoT-SFT", "0", "25.0", "40.0", MISSING] and first[5] in ("0.0", MISSING)
    assert last[:5] == ["GRPO from CoT-SFT", "2", "60.0", "101.0", "35.0"]


def test_credit_is_compared_at_equal_samples_from_the_same_start() -> None:
    found = table_credit.ablation()
    arms = {arm.name: arm for arm in found.arms}
    plain, summed, credited = (arms[name] for name in (table_credit.PLAIN, table_credit.SUMMED, table_credit.CREDITED))
    assert plain in ablation().arms and arms[UNCHECKED] in ablation().arms, "the same commands: not trained again"
    assert summed.flags[:-1] == credited.flags[:-1] == plain.flags
    assert {arm.steps for arm in (plain, summed, credited)} == {SIZES.rl_steps} and summed.rates == credited.rates
    assert (summed.start, credited.start) == (UNCHECKED, UNCHECKED)
    last = {"--rewards.links.weight=0.5", "--advantage.step_credit=0.5"}
    assert {summed.flags[-1], credited.flags[-1]} == last


def test_the_flags_of_credit_are_read_by_the_recipe() -> None:
    from trl import GRPOConfig

    from mllm.training import arguments

    root = Path(__file__).resolve().parents[3]
    for arm in table_credit.ablation().arms[1:]:
        words = [*arm.flags, "--bf16", "False", "--use_cpu", "True"]
        settings, _ = arguments.read(words, root / "recipes" / "rl.yaml", GRPOConfig)
        assert (settings.advantage is not None) == (arm.name == table_credit.CREDITED)
        assert settings.rewards["links"]["weight"] == (0.5 if arm.name == table_credit.SUMMED else 0)
