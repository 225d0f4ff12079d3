"""Rewards of captions against hand-worked values and slow loops, and the same in two processes as in one."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mllm import rewards
from mllm.boxes import Box, Frame
from mllm.captions import caption_of
from mllm.data import caption_stats
from mllm.errors import ConfigError
from mllm.evaluation.report import caption_bags
from mllm.io.jsonl import append_jsonl
from mllm.models import encoders
from mllm.records import Answer, Completion, Sample, Thing
from tests.support.encoders import colour_clip, paint

NAMES = ("red", "blue", "green", "white")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(colour_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Red and blue are a bag, green and white single images."""
    files = paint(tmp_path_factory.mktemp("images"), *NAMES)
    return [image_sample(file, "bag" if file.stem in ("red", "blue") else None) for file in files]


def image_sample(file: Path, bag: str | None) -> Sample:
    thing = Thing("bird", Box(0.1, 0.1, 0.9, 0.9), ("round", file.stem, "plain", "black cap"))
    return Sample(
        id=file.stem, task="caption", image=str(file), size=Frame(32, 32), domain="bird", entity="bird",
        question="Caption?", boxes=(), things=(thing,), captions=(f"A {file.stem} bird.",), bag=bag,
    )  # fmt: skip


def wrote(samples: list[Sample], *texts: str) -> list[Completion]:
    return [
        Completion(sample.id, text, Answer(None, None, (), (), None))
        for sample, text in zip(samples, texts, strict=True)
    ]


TEXTS = ("A red bird.", "A red bird.", "<answer>green</answer>", "A bird.")


def slow_log_p(scorer: str, samples: list[Sample], row: int, pool: list[int]) -> float:
    """log softmax with the scorer's own scale, by the definition."""
    encoder = encoders.load(scorer)
    files = [Path(samples[k].image) for k in pool]
    logits = [encoder.scale * float(s) for s in encoder.similarity([caption_of(TEXTS[row])], files)[0]]
    own = logits[pool.index(row)]
    return own - math.log(sum(math.exp(x) for x in logits))


def test_an_image_may_be_in_a_bag_and_alone_or_in_two_bags(scorer: str, samples: list[Sample]) -> None:
    red, blue, green, white = samples
    again = [red, blue, replace(red, id="alone", bag=None), green, replace(green, bag="x"), replace(blue, bag="x")]
    for batch in (again, again[::-1]):
        texts = [f"A {Path(sample.image).stem} bird." for sample in batch]
        bag = rewards.load("self_retrieval", scorer=scorer, over="bag")(batch, wrote(batch, *texts))
        found = {(sample.id, sample.bag): score for sample, score in zip(batch, bag, strict=True)}
        assert [found[key].value for key in (("alone", None), ("green", None))] == [None, None]
        for key in (("red", "bag"), ("blue", "bag"), ("green", "x"), ("blue", "x")):
            assert found[key].parts["candidates"] == 2 and found[key].parts["hit"] == 1
        one_bag = [red, blue, white]
        usual = rewards.load("self_retrieval", scorer=scorer, over="bag")(
            one_bag, wrote(one_bag, "A red bird.", "A blue bird.", "A bird.")
        )
        assert found["red", "bag"].value == pytest.approx(usual[0].value)


def test_self_retrieval_is_the_log_softmax_with_the_scorers_scale(scorer: str, samples: list[Sample]) -> None:
    found = rewards.load("self_retrieval", scorer=scorer)(samples, wrote(samples, *TEXTS))
    for row, score in enumerate(found):
        assert score.value == pytest.approx(max(slow_log_p(scorer, samples, row, [0, 1, 2, 3]), -10), abs=1e-4)
    assert found[0].parts["hit"] == 1 and found[1].parts["hit"] == 0 and found[0].parts["candidates"] == 4


def test_single_images_are_distractors_and_get_none(scorer: str, samples: list[Sample]) -> None:
    found = rewards.load("self_retrieval", scorer=scorer, over="bag_batch")(samples, wrote(samples, *TEXTS))
    assert found[0].value == pytest.approx(slow_log_p(scorer, samples, 0, [0, 1, 2, 3]), abs=1e-4)
    assert found[2].value is None and found[3].value is None
    bag = rewards.load("self_retrieval", scorer=scorer, over="bag")(samples, wrote(samples, *TEXTS))
    assert bag[0].value == pytest.approx(slow_log_p(scorer, samples, 0, [0, 1]), abs=1e-4)
    assert bag[0].parts["candidates"] == 2 and bag[3].value is None


def test_an_image_without_company_gets_none(scorer: str, samples: list[Sample]) -> None:
    one = [samples[0], samples[0]]
    for over in ("batch", "bag_batch", "bag"):
        found = rewards.load("self_retrieval", scorer=scorer, over=over)(one, wrote(one, "red", "blue"))
        assert [score.value for score in found] == [None, None]
    torn = [samples[0], samples[2]]  # its bag mate is not in the batch
    found = rewards.load("self_retrieval", scorer=scorer, over="bag_batch")(torn, wrote(torn, "red", "green"))
    assert [score.value for score in found] == [None, None]


def test_hit_and_margin(scorer: str, samples: list[Sample]) -> None:
    hit = rewards.load("self_retrieval", scorer=scorer, form="hit")(samples, wrote(samples, *TEXTS))
    assert [score.value for score in hit[:3]] == [1.0, 0.0, 1.0]
    margin = rewards.load("self_retrieval", scorer=scorer, form="margin")(samples, wrote(samples, *TEXTS))
    row = encoders.load(scorer).similarity(["A red bird."], [Path(s.image) for s in samples])[0]
    assert margin[0].value == pytest.approx(row[0] - max(row[1:]), abs=1e-6)
    assert margin[1].value == pytest.approx(row[1] - row[0], abs=1e-6)


def test_clip_s_and_its_difference_to_the_greedy_caption(scorer: str, samples: list[Sample], tmp_path: Path) -> None:
    texts = ["red", "white", "green", "red"]
    plain = rewards.load("clip", scorer=scorer)(samples, wrote(samples, *texts))
    encoder = encoders.load(scorer)
    for sample, text, score in zip(samples, texts, plain, strict=True):
        cosine = float(encoder.similarity([text], [Path(sample.image)])[0, 0])
        assert score.value == pytest.approx(2.5 * max(cosine, 0), abs=1e-5)
    greedy = wrote(samples, "A red bird.", "blue", "blue", "white")
    for row in greedy:
        append_jsonl(tmp_path / "outputs.jsonl", row)
    base = rewards.load("clip", scorer=scorer)(samples, greedy)
    config = {"scorer": scorer, "greedy": str(tmp_path / "outputs.jsonl")}
    for difference, own, other in zip(
        rewards.load("clip", **config)(samples, wrote(samples, *texts)), plain, base, strict=True
    ):
        assert difference.value == pytest.approx(own.value - other.value, abs=1e-5)
    with pytest.raises(ConfigError, match="no greedy caption of sample 'red2'"):
        rewards.load("clip", **config)([replace(samples[0], id="red2")], wrote(samples[:1], "red"))


def test_cider_counts_in_the_corpus_or_in_the_batch(samples: list[Sample]) -> None:
    same = rewards.load("cider")(samples[:2], wrote(samples[:2], "A red bird.", "A blue bird."))
    assert [score.value for score in same] == pytest.approx([7.5, 7.5])  # three words have no fourgram
    one = rewards.load("cider", frequencies="batch")(samples[:2], wrote(samples[:2], "A red bird.", "A red bird."))
    # `a` and `bird` are in both images' references, so only `red`, `a red`, `red bird` and `a red bird` weigh.
    assert one[0].value == pytest.approx(7.5) and one[1].value == pytest.approx(0.0)
    bare = [replace(samples[0], captions=())]
    assert rewards.load("cider")(bare, wrote(bare, "red"))[0].value is None


def test_length_is_a_gate(samples: list[Sample]) -> None:
    reward = rewards.load("length", least=2, most=4)
    texts = ["red", "a red bird", " ".join(["red"] * 6), " ".join(["red"] * 9)]
    assert [score.value for score in reward(samples, wrote(samples, *texts))] == [0.5, 1.0, 0.5, 0.0]


def test_faithful_by_known_marks(samples: list[Sample]) -> None:
    reward = rewards.load("faithful")
    texts = ["A round red bird.", "A red bird with black cap.", "", "A round white plain bird with black cap."]
    found = reward(samples, wrote(samples, *texts))
    assert [score.value for score in found] == [1.0, 0.5, 0.0, 1.0]
    f1 = rewards.load("faithful", measure="f1")(samples, wrote(samples, *texts))
    assert f1[0].value == pytest.approx(2 * 1 * 0.5 / 1.5) and f1[3].value == 1.0
    bare = [replace(samples[0], things=())]
    assert reward(bare, wrote(bare, "red"))[0].value is None
    reward.check([*samples, *bare])


@pytest.mark.parametrize(
    "marks",
    [
        ("orange tail", "sooty breast", "white wing panel"),
        ("round", "red", "plain", "blackish cap"),
        ("Red",),
        ("red and blue",),
    ],
)
def test_captions_of_other_worlds_are_not_judged_by_the_words_of_the_pocket_world(
    samples: list[Sample], marks: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A perfect caption of a redstart would score a third."""
    real = replace(samples[0], things=(Thing("bird", Box(0.1, 0.1, 0.9, 0.9), marks),))
    reward, text = rewards.load("faithful"), f"A bird with {', '.join(marks)}."
    with pytest.raises(ConfigError, match=r"sample red: the mark .* is not of the pocket world.*teacher: openai"):
        reward.check([samples[1], real])
    assert reward([real], wrote([real], text))[0].value is None
    rewards.load("faithful", teacher="pocket").check([real])
    found = caption_stats.caption_scores({"red": text, "blue": text}, [real, samples[1]])
    assert "precision" not in found and found["captions"] == 2 and "claims are not judged" in caplog.text
    assert caption_bags.true_marks(text, real) == "" and caption_bags.true_marks("A blue bird.", samples[1])
    assert caption_stats.caption_scores({"blue": "A blue bird."}, [samples[1]])["precision"]["value"] == 1


@pytest.mark.parametrize(
    "name,config,says",
    [
        ("self_retrieval", {"over": "bags"}, "batch, bag_batch, bag"),
        ("self_retrieval", {"form": "loss"}, "log, hit, margin"),
        ("self_retrieval", {"floor": 0}, "floor"),
        ("cider", {"corpus": "nowhere.jsonl"}, "no such samples file"),
        ("cider", {"frequencies": "idf"}, "corpus, batch"),
        ("length", {"least": 5, "most": 4}, "least <= most"),
        ("faithful", {"measure": "f1", "teacher": "pocket"}, "f1 needs"),
        ("clip", {"greedy": "nowhere.jsonl"}, "no such file"),
    ],
)
def test_settings_without_meaning_are_refused(name: str, config: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rewards.load(name, **config)


WORKER = """
import sys, json, torch.distributed as dist
from tests.rewards.test_caption_rewards import TEXTS, image_sample, wrote
from mllm import rewards
from pathlib import Path
rank, store, scorer, *files = sys.argv[1:]
dist.init_process_group("gloo", init_method="file://" + store, rank=int(rank), world_size=2)
samples = [image_sample(Path(f), "bag" if Path(f).stem in ("red", "blue") else None) for f in files]
part = slice(0, 3) if rank == "0" else slice(3, 4)
mine, done = samples[part], wrote(samples, *TEXTS)[part]
found = {}
asked = [("self_retrieval", {"scorer": scorer}), ("self_retrieval", {"scorer": scorer, "over": "bag_batch"})]
for name, config in [*asked, ("cider", {"frequencies": "batch"})]:
    found[name + config.get("over", "")] = [s.value for s in rewards.load(name, **config)(mine, done)]
print("FOUND" + json.dumps(found), flush=True)
dist.destroy_process_group()
"""


@pytest.mark.ci
def test_two_processes_give_the_rewards_of_one(scorer: str, samples: list[Sample], tmp_path: Path, root: Path) -> None:
    import json
    import subprocess

    files = [sample.image for sample in samples]
    command = [sys.executable, "-c", WORKER]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), scorer, *files], cwd=root, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    parts = [json.loads(output.partition("FOUND")[2]) for output in outputs]
    for name, over, config in (
        ("self_retrieval", "", {"scorer": scorer}),
        ("self_retrieval", "bag_batch", {"scorer": scorer, "over": "bag_batch"}),
        ("cider", "", {"frequencies": "batch"}),
    ):
        whole = [score.value for score in rewards.load(name, **config)(samples, wrote(samples, *TEXTS))]
        for one, both in zip(whole, parts[0][name + over] + parts[1][name + over], strict=True):
            assert (one is None) == (both is None) and (one is None or np.isclose(one, both, atol=1e-6))
