"""Every file of mllm/rewards keeps the contract: defaults build, gold scores high, rubbish never raises, it pickles."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm import rewards
from mllm.boxes import Box, Frame
from mllm.errors import ConfigError, UnknownNameError
from mllm.models import families
from mllm.prompting.tasks import CompletionReader, task_of
from mllm.records import Completion, Sample, Thing
from tests.support.encoders import colour_clip, paint

FAMILY = families.load("pocket")
SIZE = Frame(192, 192)
FRAME = FAMILY.frame(SIZE, FAMILY.budget)
RUBBISH = [
    "",
    " ",
    "<answer>",
    "</answer><answer>",
    "<answer></answer>",
    "<answer>(1,2),(3</answer>",
    "<answer>(90,90),(10,10)</answer>",
    "<answer>(1,1),(200,200)</answer>",
    "<think></think><answer>(0,0),(0,0)</answer>",
    "<answer>(1,1),(2,2)</answer><answer>(1,1),(2,2)</answer>",
    "<think><answer>(1,1),(20,20)</answer>",
    "(1e308,1e308),(1e309,1e309)",
    "Find the bird. Reason in <think></think>, then answer in <answer></answer>.",
    "\x00\ud800"[:1] + "�" * 50,
    "<answer>" + "(1,1),(2,2)" * 500 + "</answer>",
]


def sample(number: int = 0) -> Sample:
    marks = (("round",), ("wide",))
    things = (
        Thing("Tala rovi", Box(0.1, 0.1, 0.4, 0.5), marks[0]),
        Thing("Tala runo", Box(0.6, 0.5, 0.9, 0.95), marks[1]),
    )
    return Sample(
        id=f"s{number}",
        task="ground",
        image="s.png",
        size=SIZE,
        domain="bird",
        entity="Tala rovi",
        question="Find the bird Tala rovi.",
        boxes=(things[0].box,),
        things=things,
        thought="Tala rovi: round. 1 <obj:0>: round. 2 <obj:1>: wide. So 1.",
    )


def completion(text: str, of: Sample) -> Completion:
    return CompletionReader(FAMILY, FAMILY.budget).read(of, text)


SCORED = ("clip", "self_retrieval")
"""Rewards that ask an encoder; the tests give them a small one of their own."""
NEEDED = {"mastery": {"unknown": "partially correct"}}
"""Settings without which a reward cannot be built."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return paint(tmp_path_factory.mktemp("images"), "red", "blue", "green")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(colour_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(params=rewards.names())
def reward(request: pytest.FixtureRequest, scorer: str) -> Iterator[rewards.BaseReward]:
    yield build(request.param, scorer)


def build(name: str, scorer: str) -> rewards.BaseReward:
    needed = NEEDED.get(name, {})
    assert rewards.load(name, **needed) is not None, "defaults build, without weights or files being read"
    config: dict[str, Any] = {"scorer": scorer} if name in SCORED else {}
    return rewards.load(name, **needed, **config).reading(FAMILY, FAMILY.budget)


def captioned(img: Path, number: int = 0) -> Sample:
    colour = img.stem
    thing = Thing("bird", Box(0.1, 0.1, 0.9, 0.9), ("round", colour, "plain", "black cap"))
    caption = f"A round {colour} plain bird."
    return replace(
        sample(number),
        task="caption",
        image=str(img),
        things=(thing,),
        captions=(caption,),
        bag="b",
        thought=None,
    )


def golds() -> list[Sample]:
    """One sample of each kind: one thing, all of several, a thing that is not there."""
    one = sample()
    every = replace(one, id="all", task="ground_all", boxes=tuple(thing.box for thing in one.things))
    thought = "Tala rovi: round. 1 <obj:0>: wide, not. So none."
    absent = replace(one, id="absent", boxes=(), things=one.things[1:], thought=thought)
    return [one, every, absent]


def gold_and_others(reward: rewards.BaseReward, images: list[Path]) -> tuple[list[Sample], list[str]]:
    """A batch of three samples of the reward's task, and what should be said of them."""
    if reward.task == "caption":
        rows = [captioned(img, number) for number, img in enumerate(images)]
        return rows, [row.captions[0] for row in rows]
    rows = golds()
    if reward.task == "name":
        rows = [replace(row, task="name", question="What species of bird is this?") for row in rows]
    return rows, [task_of(row).target(row, "think", FAMILY, FRAME) for row in rows]


def test_they_are_what_we_think() -> None:
    assert {"format", "iou", "mastery", "matched", "presence", "recall"} <= set(rewards.names())


def test_it_is_a_frozen_value_that_pickles(reward: rewards.BaseReward) -> None:
    assert is_dataclass(reward) and type(reward).__name__ == "Reward"
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert type(reward).__doc__ and "R = " in type(reward).__doc__, "the docstring is the formula"
    for item in fields(reward):
        with pytest.raises(AttributeError):
            setattr(reward, item.name, None)


def test_gold_scores_high(reward: rewards.BaseReward, images: list[Path]) -> None:
    rows, texts = gold_and_others(reward, images)
    output = [completion(text, row) for text, row in zip(texts, rows, strict=True)]
    values = [score.value for score in reward(rows, output) if score.value is not None]
    # Cosines do not come near 1: CLIP-S of a right caption is what it is, so it only has to beat rubbish.
    share = 0.4 if type(reward).__module__.endswith(".clip") else 0.9
    assert values and min(values) >= reward.low + share * (reward.high - reward.low)
    assert reward.task == "ground" or len(values) == len(rows)
    reward.check(rows)


def test_rubbish_never_raises_and_scores_below_gold(reward: rewards.BaseReward, images: list[Path]) -> None:
    rows, texts = gold_and_others(reward, images)
    gold = reward(rows, [completion(text, row) for text, row in zip(texts, rows, strict=True)])
    best = max(score.value for score in gold if score.value is not None)
    rows = [replace(rows[k % 3] if reward.task == "caption" else sample(k), id=f"r{k}") for k in range(len(RUBBISH))]
    found = reward(rows, [completion(text, row) for text, row in zip(RUBBISH, rows, strict=True)])
    values = [score.value for score in found if score.value is not None]
    assert all(reward.low <= value <= reward.high for value in values)
    if reward.task == "ground" and type(reward).__module__ != "mllm.rewards.presence":
        assert all(value < reward.high for value in values)  # presence asks for a box, wherever it lies
    assert not values or sum(values) < best * len(values)


def test_other_tasks_get_none(reward: rewards.BaseReward, images: list[Path]) -> None:
    if reward.task == "caption":
        rows = [sample(k) for k in range(2)]
        assert [score.value for score in reward(rows, [completion("red", row) for row in rows])] == [None, None]
    named = replace(sample(), task="name")
    (score,) = reward([named], [completion("(10,10),(40,50)", named)])
    assert (score.value is None) == (type(reward).__module__ not in ("mllm.rewards.name", "mllm.rewards.format"))
    assert reward([], []) == []


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text() | st.from_regex(r"(<think>.{0,20}</think>)?<answer>[0-9,(). ]{0,30}(</answer>)?"), max_size=4)
)
def test_any_text_stays_in_range(scorer: str, images: list[Path], texts: list[str]) -> None:
    for name in rewards.names():
        reward = build(name, scorer)
        gold, _ = gold_and_others(reward, images)
        rows = [gold[k % 3] for k in range(len(texts))]
        for score in reward(rows, [completion(text, row) for text, row in zip(texts, rows, strict=True)]):
            assert score.value is None or reward.low <= score.value <= reward.high
            assert all(isinstance(part, float) for part in score.parts.values())


def test_samples_and_completions_must_match(reward: rewards.BaseReward) -> None:
    with pytest.raises(ValueError):
        reward([sample()], [])


def test_an_unknown_reward_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="'iuo'.*mean 'iou'.*format"):
        rewards.load("iuo")


def test_an_unknown_field_names_the_known() -> None:
    with pytest.raises(ConfigError, match="no field 'tao'.*weight, mode, tau, gamma"):
        rewards.load("iou", tao=0.5)


def test_a_config_gives_rewards_and_weights_in_order() -> None:
    built = rewards.load_all({"iou": {"mode": "power", "weight": 2}, "format": {}})
    assert list(built) == ["iou", "format"]
    assert built["iou"] == (rewards.load("iou", mode="power"), 2.0)
    assert built["format"][1] == 1.0
    assert rewards.load_all({"recall": {}})["recall"][1] == 0.0  # there to be logged
    assert rewards.load_all({"recall": {"weight": 0.5}})["recall"][1] == 0.5
