"""Every file of mllm/rewards keeps the contract: defaults build, gold scores high, rubbish never raises, it pickles."""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm import answers, families, prompts, rewards
from mllm.boxes import Box, Frame
from mllm.errors import ConfigError, UnknownNameError
from mllm.records import Completion, Sample, Thing

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
    return Completion(of.id, text, answers.parse(text, FAMILY, FRAME))


NEEDED = {"mastery": {"unknown": "partially correct"}}
"""Settings without which a reward cannot be built."""


def build(name: str) -> rewards.BaseReward:
    return rewards.load(name, **NEEDED.get(name, {}))


@pytest.fixture(params=rewards.names())
def reward(request: pytest.FixtureRequest) -> rewards.BaseReward:
    return build(request.param)


def golds() -> list[Sample]:
    """One sample of each kind: one thing, all of several, a thing that is not there."""
    one = sample()
    every = replace(one, id="all", task="ground_all", boxes=tuple(thing.box for thing in one.things))
    thought = "Tala rovi: round. 1 <obj:0>: wide, not. So none."
    absent = replace(one, id="absent", boxes=(), things=one.things[1:], thought=thought)
    return [one, every, absent]


def test_they_are_what_we_think() -> None:
    assert {"format", "giou", "iou", "mastery", "matched", "presence", "recall"} <= set(rewards.names())


def test_it_is_a_frozen_value_that_pickles(reward: rewards.BaseReward) -> None:
    assert is_dataclass(reward) and type(reward).__name__ == "Reward"
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert type(reward).__doc__ and "R = " in type(reward).__doc__, "the docstring is the formula"
    for item in fields(reward):
        with pytest.raises(AttributeError):
            setattr(reward, item.name, None)


def test_gold_scores_high(reward: rewards.BaseReward) -> None:
    rows = golds()
    said = [completion(prompts.target(row, "think", FAMILY, FRAME), row) for row in rows]
    values = [score.value for score in reward(rows, said) if score.value is not None]
    assert values and min(values) >= reward.low + 0.9 * (reward.high - reward.low)
    reward.check(rows)


def test_rubbish_never_raises_and_scores_below_gold(reward: rewards.BaseReward) -> None:
    rows = [sample(k) for k in range(len(RUBBISH))]
    for score in reward(rows, [completion(text, row) for text, row in zip(RUBBISH, rows, strict=True)]):
        below = score.value is None or score.value < reward.high
        assert score.value is None or reward.low <= score.value <= reward.high
        assert below or type(reward).__module__ == "mllm.rewards.presence"  # it asks for a box, wherever it lies


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text() | st.from_regex(r"(<think>.{0,20}</think>)?<answer>[0-9,(). ]{0,30}(</answer>)?"), max_size=4)
)
def test_any_text_stays_in_range(texts: list[str]) -> None:
    rows = [sample(k) for k in range(len(texts))]
    for name in rewards.names():
        reward = build(name)
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
