"""The whole preflight on fifty rows: the pocket recipe with its tokenizer, the 7B and 8B recipes at full size."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mllm.errors import FieldmarkError
from mllm.io.jsonl import write_jsonl
from mllm.knowledge.mastery import LEVELS, Entry, MasteryTable
from mllm.prompting import questions
from mllm.records import load_samples
from mllm.training.preflight import check
from tests.support.command_line import Ended, fieldmark
from tests.support.scenes import make_captions, make_data

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "recipes"
KARL = RECIPES / "kvg_karl_qwen3vl_8b.yaml"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    train, validation = make_data(tmp_path_factory.mktemp("fifty"), train=50, validation=4)
    return ["--train", str(train), "--validation", str(validation)]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def preflight(*words: str | Path) -> Ended:
    done = fieldmark(["preflight", "--config", *map(str, words)])
    if done.exit_code == 2:
        raise FieldmarkError(done.output.removeprefix("error: "))
    return done


def test_the_pocket_recipe_passes_even_strictly(rows: list[str]) -> None:
    done = preflight(RECIPES / "sft.yaml", "--strict", "--", *rows)
    assert done.exit_code == 0, done.output
    assert "NOT CHECKED" not in done.output and done.output.endswith("ready\n")
    for line in (
        "pocket: 4,760,544 parameters, counted from its config.json",
        "50 to train on, with 50 images whose sizes match; 4 to validate",
        "36 to 36 tokens, median 36",  # 192 x 192 pixels, 32 x 32 a token
        "format: 1.000 to 1.000, mean 1.000, of 1; full marks but for rounding",
        "an update learns from 16 rows: 16 rows x 1 processes x 1 accumulated",
        "300 updates, 4 per epoch: 75.00 epochs",
    ):
        assert line in done.output
    assert re.search(r"longest batch: \d+ tokens, padded, in 16 rows: train-", done.output)


def test_time_is_bounded_for_rows_that_do_not_exist_yet() -> None:
    """KARL's second stage: 2,056 rows are 257 batches of 8 prompts per epoch, two updates each, 16,448 answers."""
    done = preflight(KARL, "--rows", "25000")
    for line in (
        "1028 updates, 514 per epoch: 2.00 epochs",
        "16448 answers are generated in total",
        "no sooner than",
        "not there yet: runs/kvg/data/train.jsonl",
    ):
        assert line in done.output
    assert "no sooner than" not in preflight(KARL).output


def test_the_lengths_are_those_of_the_run_s_own_check(rows: list[str]) -> None:
    from mllm.models import checkpoint
    from mllm.prompting import conversations
    from mllm.records import load_samples

    found = check.check_recipe(RECIPES / "rl.yaml", ["--model", "pocket", *rows])
    lines = {finding.topic: finding.lines for finding in found.findings}
    counted = conversations.lengths(
        load_samples(rows[1]), checkpoint.open_checkpoint("pocket", style="think"), answers=False
    )
    assert lines["row lengths"][0].startswith(f"{min(counted) + 208} to {max(counted) + 208} tokens")
    assert sum(int(line.split()[1]) for line in lines["row lengths"][1:-1]) == 50


@pytest.mark.parametrize(
    ("recipe", "measure", "says"),
    [
        (
            "kvg_karl_qwen3vl_8b",
            "mastery",
            ("8,767,123,696 parameters, as published", "8 prompts x 4 answers", "24 updates, 12 per epoch", "36 to 36"),
        ),
        (
            "kvg_deepperception_qwen2vl_7b",
            "iou",
            ("8,291,375,616 parameters, as published", "16 prompts x 4 answers", "6 updates, 3 per epoch", "49 to 49"),
        ),
    ],
)  # fmt: skip
def test_a_full_size_recipe_is_checked_except_for_its_tokenizer(
    rows: list[str], recipe: str, measure: str, says: tuple[str, ...]
) -> None:
    """The recipe two stages earlier names the published weights; only the words cannot be counted here."""
    done = preflight(RECIPES / f"{recipe}.yaml", "--", *rows)
    assert done.exit_code == 0, done.output
    for word in (*says, "tokenizer: NOT CHECKED", "hf download Qwen/", "50 to train on", "no sooner than"):
        assert word in done.output
    assert re.search(measure + r": 0\.9\d\d to [01]\.\d\d\d, .*full marks", done.output)
    assert "rows: NOT CHECKED" not in done.output and f"ready; not checked: {2 + (measure == 'mastery')}" in done.output
    assert preflight(RECIPES / f"{recipe}.yaml", "--strict", "--", *rows).exit_code == 1


CAPTIONS = ("captions_bagcurri_vcb", "captions_self_retrieval", "captions_discritune", "captions_clip_reward",
            "captions_clip_grammar", "captions_bagcurri_anchor",
            "captions_cider")  # fmt: skip


@pytest.mark.ci
def test_caption_recipes_are_checked_including_bags(tmp_path: Path) -> None:
    files = [make_captions(tmp_path, split, families=2, size=7) for split in ("train", "validation")]
    flags = ["--model", "pocket", "--train", str(files[0]), "--validation", str(files[1])]
    for name in CAPTIONS:
        done = preflight(RECIPES / f"{name}.yaml", "--strict", "--", *flags)
        assert done.exit_code == 0, done.output
        assert "14 prompts x 8 answers are generated at a time" in done.output
        if name == CAPTIONS[0]:
            for line in ("6 bags of 2", "4 bags of 3", "2 bags of 5", "2 bags of 7", "4 beside bags of 5"):
                assert line in done.output
            assert re.search(r"self_retrieval: -\d\.\d+ to -0\.\d+, mean .*; each earns something", done.output)
            assert "length: 1.000 to 1.000, mean 1.000, of 1; full marks" in done.output
    absent = ["--bags.files", str(tmp_path / "bags-2-hard.jsonl")]
    done = preflight(RECIPES / f"{CAPTIONS[0]}.yaml", "--", *flags, *absent)
    assert done.exit_code == 0 and "python data_synth/bags.py --samples" in done.output
    assert preflight(RECIPES / f"{CAPTIONS[0]}.yaml", "--strict", "--", *flags, *absent).exit_code == 1
    sft = preflight(RECIPES / "captions_vcb_sft.yaml", "--strict", "--", *flags[2:])
    assert sft.exit_code == 0 and "faithful: 1.000 to 1.000" in sft.output


def test_missing_data_is_not_checked_and_not_a_failure(tmp_path: Path) -> None:
    flags = ["--", "--train", str(tmp_path / "t.jsonl"), "--validation", str(tmp_path / "v.jsonl")]
    done = preflight(KARL, *flags)
    assert done.exit_code == 0
    assert f"not there yet: {tmp_path}/t.jsonl" in done.output and f"--out {tmp_path}" in done.output
    assert preflight(KARL, "--strict", *flags).exit_code == 1


@pytest.mark.ci
def test_an_absent_mastery_file_is_not_checked_and_a_present_one_is(rows: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mastery.json"
    flags = ["--", *rows, "--rewards.mastery.file", str(file)]
    done = preflight(KARL, *flags)
    assert done.exit_code == 0 and "mastery: NOT CHECKED" in done.output
    assert f"not there yet: {file}" in done.output and f"--out {tmp_path}" in done.output
    MasteryTable({"nobody": Entry(LEVELS[0], 1, 1)}).save(file)
    with pytest.raises(FieldmarkError, match="entities of the data are not in it"):
        preflight(KARL, *flags)
    MasteryTable({sample.entity: Entry(LEVELS[2], 2, 5) for sample in load_samples(rows[1])}).save(file)
    assert "mastery: NOT CHECKED" not in preflight(KARL, *flags).output


@pytest.mark.ci
def test_what_does_not_fit_is_bad_and_a_change_is_suggested(rows: list[str]) -> None:
    """With the suggested settings the same preflight passes."""
    flags = ["--", *rows, "--gradient_checkpointing", "False", "--per_device_train_batch_size", "4", "--beta", "0.0"]
    done = preflight(KARL, "--gpu-memory", "64", *flags)
    assert done.exit_code == 1 and "memory: BAD" in done.output and "NOT READY" in done.output
    assert "gradient_checkpointing: true  ->  " in done.output
    better = [flag if flag != "False" else "True" for flag in flags]
    assert preflight(KARL, "--gpu-memory", "64", *better).exit_code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--num_generations", "3"],
            "= 32 answers per generation batch, which is not a multiple of num_generations = 3",
        ),
        (["--rewards.iuo.weight", "1"], "unknown reward 'iuo'"),
        (["--rewards.mastery.tao", "1"], "reward 'mastery' has no field 'tao'"),
        (["--style", "direct"], "rewards.format.style is not the prompt's style"),
        (["--lerning_rate", "1"], "unknown key '--lerning_rate'.*learning_rate"),
        (["--family", "qwen2_vl"], "family 'qwen2_vl' is for model type qwen2_vl, but the model's is qwen3_vl"),
        (["--model", "runs/nowhere/best"], "runs/nowhere/best does not exist, and no recipe beside this one"),
        (["--model", "Qwen/Qwen9"], "Qwen/Qwen9: neither a local folder nor a checkpoint"),
    ],
)
def test_mistakes_are_refused_as_by_the_recipe(flags: list[str], message: str) -> None:
    with pytest.raises(FieldmarkError, match=message):
        preflight(KARL, "--", *flags)


def test_bad_rows_are_refused_by_the_run_s_own_check(rows: list[str], tmp_path: Path) -> None:
    train, validation = make_data(tmp_path, train=4, validation=1)
    lines = [json.loads(line) for line in train.read_text().splitlines()]
    lines[2]["size"] = [100, 192]
    train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(FieldmarkError, match="train-002: field size: says 100 x 192"):
        preflight(RECIPES / "sft.yaml", "--", "--train", str(train), "--validation", str(validation))


def test_rewards_that_gold_answers_do_not_satisfy_are_bad(rows: list[str]) -> None:
    tight = ["--rewards.iou.mode", "threshold", "--rewards.iou.tau", "0.999"]
    done = preflight(RECIPES / "rl.yaml", "--", "--model", "pocket", *rows, *tight)
    assert done.exit_code == 1 and "gold answers: BAD" in done.output and "rows fall short" in done.output


def test_images_larger_than_a_row_are_bad_without_a_tokenizer(rows: list[str]) -> None:
    done = preflight(KARL, "--", *rows, "--max_tokens_per_sample", "1530")
    assert done.exit_code == 1 and "images alone take up to 36 of max_tokens_per_sample = 1530" in done.output


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_says_how_it_is_checked_or_is_the_pocket_example(path: Path) -> None:
    text = path.read_text()
    model = yaml.safe_load(text)["fieldmark"]["model"]
    if model == "pocket" or model.startswith("runs/pocket"):
        return
    visible = path.relative_to(ROOT)
    assert f"#   fieldmark preflight --config {visible}\n" in text
    assert re.search(rf"#   accelerate launch --config_file \S+\.yaml recipes/(sft|rl)\.py --config {visible}\n", text)
    assert "# Cost, estimated and not measured: " in text and "# Published" in text and "COST" not in text


@pytest.mark.ci
@pytest.mark.parametrize("stage", ["_sft", ""])
def test_naming_recipes_are_checked_with_open_questions_and_letters(tmp_path: Path, stage: str) -> None:
    """The gold names earn everything, by the reward and by the benchmark's measure; a neighbour's name nothing."""
    files = make_data(tmp_path, train=16, validation=2)
    for file in files:
        samples = []
        for number, row in enumerate(load_samples(file)):
            names = tuple(thing.entity for thing in row.things)
            question = questions.naming("bird", f"at <obj:{number % 4}>", names if number % 2 else ())
            samples.append(replace(row, task="name", question=question, options=names))
        write_jsonl(file, samples)
    flags = ["--train", str(files[0]), "--validation", str(files[1])]
    done = preflight(RECIPES / f"fgvr_deepperception_qwen2vl_7b{stage}.yaml", "--", *flags)
    assert done.exit_code == 0 and "8,291,375,616 parameters, as published" in done.output, done.output
    assert re.search(r"name: 1\.000 to 1\.000, mean 1\.000, of 1; full .*; another row's answer: mean 0\.", done.output)
    assert "format: 1.000 to 1.000" in done.output and "iou" not in done.output
