"""Samples as TRL's rows, rewards as TRL's callables."""

from __future__ import annotations

import pickle
from collections import defaultdict
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

from mllm import rewards
from mllm.errors import RecordError
from mllm.models.checkpoint import Checkpoint, open_checkpoint
from mllm.prompting import conversations
from mllm.records import image_path, load_samples
from mllm.training import trl_adapter
from mllm.training.grpo.bag_sampler import BagSampler, Schedule
from tests.support.scenes import make_captions, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("bridge"), train=3, validation=1)[0]


@pytest.fixture(scope="module")
def checkpoint(pocket_folder: Path) -> Checkpoint:
    return open_checkpoint(pocket_folder, style="think")


@pytest.fixture(scope="module")
def rows(data: Path) -> list[trl_adapter.Row]:
    return [trl_adapter.Row(sample, image_path(data, sample)) for sample in load_samples(data)]


def test_rows_are_what_trl_wants(rows: list[trl_adapter.Row], checkpoint: Checkpoint) -> None:
    made = trl_adapter.dataset(rows, checkpoint.convention, answers=True)
    row = made[1]
    assert row["sample"] == rows[1].record
    assert sorted(part["type"] for part in row["prompt"][-1]["content"]) == ["image", "text"]
    assert row["images"][0].size == (192, 192) and row["images"][0].mode == "RGB"
    assert row["completion"][0]["role"] == "assistant"
    assert row["completion"][0]["content"][0]["text"] == conversations.target(
        load_samples(rows[1].image.parent / "train.jsonl")[1], checkpoint.convention
    )  # type: ignore[union-attr]
    assert "completion" not in trl_adapter.dataset(rows, checkpoint.convention, answers=False)[0]


def test_a_caption_is_asked_as_it_stands_and_names_its_image(
    rows: list[trl_adapter.Row], checkpoint: Checkpoint
) -> None:
    plain = replace(
        rows[0].record, task="caption", question="Caption?", captions=(" A red bird. ", "A bird."), boxes=()
    )
    row = trl_adapter.dataset([trl_adapter.Row(plain, rows[0].image)], checkpoint.convention, answers=True)[0]
    texts = [part["text"] for part in row["prompt"][-1]["content"] if part["type"] == "text"]
    assert texts == ["Caption?"] and row["completion"][0]["content"][0]["text"] == "A red bird."
    assert Path(row["sample"].image).is_absolute() and Path(row["sample"].image).samefile(rows[0].image)
    with pytest.raises(RecordError, match="field captions"):
        conversations.target(replace(plain, captions=()), checkpoint.convention)


def test_plain_questions_mix_in_with_and_without_an_image(rows: list[trl_adapter.Row], checkpoint: Checkpoint) -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    mixed = [
        *rows[:1],
        trl_adapter.Row(trl_adapter.Exchange("q1", "What are the marks of Tala?", "round, red."), None),
        trl_adapter.Row(trl_adapter.Exchange("q2", "Describe it.", "round, red.", "x.png"), rows[0].image),
    ]
    made = trl_adapter.dataset(mixed, checkpoint.convention, answers=True)
    found = made.__getitems__([0, 1, 2])
    assert [len(row["images"]) for row in found] == [1, 0, 1]
    batch = DataCollatorForVisionLanguageModeling(checkpoint.processor, completion_only_loss=True)(found)
    assert batch["image_grid_thw"].shape[0] == 2
    labels = batch["labels"][1]
    assert checkpoint.processor.tokenizer.decode(labels[labels != -100]) == "round, red.<|im_end|>\n"


def test_images_are_decoded_once_and_forgotten_above_the_limit(rows: list[trl_adapter.Row]) -> None:
    cache = trl_adapter.ImageCache(limit=2 * 192 * 192 * 3)
    first, second, third = (row.image for row in rows)
    assert first is not None and second is not None and third is not None
    kept = cache.load(first)
    assert cache.load(first) is kept
    cache.load(second), cache.load(first), cache.load(third)
    assert cache.load(first) is kept, "the least recently used goes first"
    assert cache.size <= cache.limit
    assert pickle.loads(pickle.dumps(cache)).size == 0


def test_a_reward_as_trl_calls_it(rows: list[trl_adapter.Row], checkpoint: Checkpoint) -> None:
    samples = [row.record for row in rows]
    good = conversations.target(samples[0], checkpoint.convention)  # type: ignore[arg-type]
    texts = [good, "no idea", "<answer>(0,0),(1,1)</answer>"]
    function = trl_adapter.TrlReward("iou", rewards.load("iou"), checkpoint, count_problems=True)
    function = pickle.loads(pickle.dumps(function))
    assert function.__name__ == "iou"
    logged: dict[str, list[float]] = defaultdict(list)
    scores = function(
        prompts=[None] * 3,
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[1]] * 3,
        sample=samples,  # type: ignore[arg-type]
        images=[[]] * 3,
        trainer_state=None,
        log_metric=lambda name, value: logged[name].append(value),
    )
    assert scores[0] is not None and scores[0] > 0.9
    assert scores[1:] == [0.0, pytest.approx(0.0, abs=0.01)]
    assert logged["iou/unread"] == [pytest.approx(1 / 3)]
    assert logged["unread/no answer tag"] == [pytest.approx(1 / 3)]


def test_none_means_it_does_not_apply(rows: list[trl_adapter.Row], checkpoint: Checkpoint) -> None:
    from dataclasses import replace

    nowhere = replace(rows[0].record, boxes=())  # type: ignore[type-var]
    function = trl_adapter.TrlReward("iou", rewards.load("iou"), checkpoint)
    assert function([None], [[{"role": "assistant", "content": "x"}]], [[1]], sample=[nowhere]) == [None]  # type: ignore[list-item]


def test_captions_do_not_count_as_unread_and_scores_are_reported(
    tmp_path: Path, checkpoint: Checkpoint, rows: list[trl_adapter.Row]
) -> None:
    """A caption needs no answer tag; listeners receive the samples and their scores."""
    captions = load_samples(make_captions(tmp_path, "train", families=1, size=2))
    mixed = [captions[0], rows[0].record]
    reported: list[tuple[list, list]] = []
    function = trl_adapter.TrlReward(
        "length",
        rewards.load("length", least=2, most=9),
        checkpoint,
        count_problems=True,
        listeners=[lambda _name, samples, _completions, scores: reported.append((list(samples), list(scores)))],
    )
    logged: dict[str, float] = {}
    values = function([None] * 2, ["A red bird.", "no box"], [(1,), (1,)], sample=mixed, log_metric=logged.__setitem__)
    assert values == [1.0, None] and logged["unread/no answer tag"] == 1.0, "one of the one that was to be read"
    assert reported[0][0] == mixed and [score.value for score in reported[0][1]] == values
    function([None], ["A red bird."], [(1,)], sample=captions[:1], log_metric=(alone := {}).__setitem__)
    assert not [name for name in alone if name.startswith("unread")]


def test_bags_travel_with_the_images(tmp_path: Path, checkpoint: Checkpoint) -> None:
    file = make_captions(tmp_path, "train", families=2, size=2)
    rows = [trl_adapter.Row(sample, image_path(file, sample)) for sample in load_samples(file)]
    sampler = BagSampler(4, {2: [(2, 3)]}, Schedule(((1, 2),)), batch=4, generations=1)
    made = trl_adapter.dataset(rows, checkpoint.convention, answers=False, bags=sampler)
    assert len(made) == sampler.virtual_rows == 8
    assert {made[number]["sample"].id: made[number]["sample"].bag for number in sampler} == {
        rows[0].record.id: None, rows[1].record.id: None, rows[2].record.id: "2/0", rows[3].record.id: "2/0",
    }  # fmt: skip


def test_a_template_that_opens_the_thought_costs_no_reward(rows: list[trl_adapter.Row], pocket_folder: Path) -> None:
    """What the model writes then lacks `<think>`; it is put back before it is read and judged."""
    opened = open_checkpoint(pocket_folder, style="think")
    opened = replace(opened, processor=copy(opened.processor))
    sample = rows[0].record
    text = conversations.target(sample, opened.convention)
    rest = text.removeprefix("<think>")
    judge = rewards.load("format")
    ask = {"prompts": [None] * 2, "completions": [rest, text], "completion_ids": [[1]] * 2, "sample": [sample] * 2}
    assert trl_adapter.TrlReward("format", judge, opened)(**ask) == [0.5, 1.0]
    opened.processor.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    assert trl_adapter.TrlReward("format", judge, opened)(**ask) == [1.0, 1.0]
    direct = replace(opened, convention=replace(opened.convention, prompt="direct"))
    answer = conversations.target(sample, direct.convention)
    at_once = [f"\n</think>\n\n{answer}", f"It is red.</think>{answer}"]  # the template opens it in every style
    judged = trl_adapter.TrlReward("format", rewards.load("format", style="direct"), direct)
    found = judged(**ask | {"completions": at_once})
    assert found == [1.0, 0.5], "only a thought that says nothing is none"
    opened.processor.chat_template += "{% if add_generation_prompt %}</think>{% endif %}"
    assert trl_adapter.TrlReward("format", judge, opened)(**ask) == [0.5, 1.0], "a thought that is closed already"
