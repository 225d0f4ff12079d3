"""Numbers measured while training are the benchmark's, by the benchmark's functions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval import truematch
from mllm.config import Evaluate
from mllm.data.bags import Bag
from mllm.errors import RecordError
from mllm.io.jsonl import write_jsonl
from mllm.records import Answer, Completion, Sample, load_samples
from mllm.training import validation_metrics
from tests.support.scenes import make_captions, make_scene


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_captions(tmp_path_factory.mktemp("watched"), "validation", families=4, size=3)


@pytest.fixture(scope="module")
def samples(file: Path) -> list[Sample]:
    return load_samples(file)


def wrote(samples: list[Sample]) -> list[Completion]:
    """Every third caption is that of its neighbour, the others are right."""
    texts = [samples[k - (k % 3 == 2)].captions[0] for k in range(len(samples))]
    return [
        Completion(sample.id, text, Answer(None, None, (), (), None), tokens=7, truncated=k == 0)
        for k, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]


def test_captions_get_the_number_of_the_benchmark(file: Path, samples: list[Sample], tmp_path: Path) -> None:
    done = wrote(samples)
    measured = validation_metrics.choose(samples, file.parent, Evaluate())(samples, done)
    write_jsonl(tmp_path / "outputs.jsonl", done)
    write_jsonl(tmp_path / "bags.jsonl", [Bag(f"b{k}", tuple(s.id for s in samples[k : k + 3])) for k in (0, 3, 6, 9)])
    info = ["--captions", str(tmp_path / "outputs.jsonl"), "--samples", str(file), "--out", str(tmp_path / "o.json")]
    truematch.main([*info, "--bags", str(tmp_path / "bags.jsonl")])
    table = json.loads((tmp_path / "o.json").read_text())
    assert measured["eval/r1"] == pytest.approx(table["sizes"]["3"]["r1"]["value"])
    assert measured["eval/chance"] == pytest.approx(1 / 3)
    for name in ("precision", "recall"):
        assert measured[f"eval/{name}"] == pytest.approx(table["text"][name]["value"])
    assert measured["eval/precision"] < 1 and measured["eval/truncated"] == pytest.approx(1 / 12)


def test_bags_may_come_from_files(file: Path, samples: list[Sample], tmp_path: Path) -> None:
    bags = tmp_path / "bags.jsonl"
    write_jsonl(bags, [Bag("a", (samples[0].id, samples[5].id)), Bag("b", (samples[1].id, "not among them"))])
    chosen = validation_metrics.choose(samples, file.parent, Evaluate(bags=(bags,)))
    assert isinstance(chosen, validation_metrics.Captions)
    assert chosen.bags == [[samples[0].id, samples[5].id]], "a bag that is not whole is left out"


def test_what_cannot_be_measured_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no complete bag"):
        validation_metrics.choose([replace(sample, bag=None) for sample in samples], tmp_path, Evaluate())
    scene = make_scene(tmp_path, 0, "validation")
    with pytest.raises(RecordError, match="is mixed with captions"):
        validation_metrics.choose([*samples, scene], tmp_path, Evaluate())
    assert validation_metrics.choose([scene], tmp_path, Evaluate()).key == "eval/acc"
