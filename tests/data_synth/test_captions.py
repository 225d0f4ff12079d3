"""Making caption data: sides that share nothing, captions that are true, bags that are whole, the same bytes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_synth import captions
from mllm.data import bags
from mllm.data.bags import Bag
from mllm.errors import FieldmarkError
from mllm.io.images import open_image
from mllm.io.jsonl import read_jsonl
from mllm.pocket.captions import judge
from mllm.records import SPLITS, Sample, load_samples
from mllm.synthesis.captioning import CaptionResult
from tests.support.killing import contents, killed_and_whole

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--train",
    "24",
    "--validation",
    "6",
    "--test",
    "6",
    "--family",
    "10",
    "--held-out-family",
    "3",
    "--sheet",
    "3",
]


def make(out: Path, *flags: str) -> dict[str, Any]:
    captions.main([*flags, "--out", str(out)])
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sparse") / "data"
    make(out, *SMALL)
    return out


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("boosted") / "data"
    make(out, *SMALL, "--strategy", "holistic")
    return out


def samples(out: Path) -> list[Sample]:
    return [sample for side in SPLITS for sample in load_samples(out / f"{side}.jsonl")]


def looks(sample: Sample) -> tuple[str, frozenset[tuple[str, ...]]]:
    return sample.domain, frozenset(thing.marks for thing in sample.things)


def test_every_sample_is_a_caption_row_with_its_image(sparse: Path) -> None:
    rows = samples(sparse)
    assert [sum(row.split == side for row in rows) for side in SPLITS] == [24, 6, 6]
    for row in rows:
        assert open_image(sparse / row.image).size == (192, 192)
        assert row.task == "caption" and row.question == "Describe this picture." and not row.boxes
        assert row.captions[0] in row.human_captions and 1 <= len(row.human_captions) <= 5
        for caption in row.human_captions:
            found = judge(caption, [thing.marks for thing in row.things])
            assert found.right == found.claimed and found.things_claimed == found.things_true
    assert len({looks(row) for row in rows if row.split == "train"} & {looks(row) for row in rows[24:]}) == 0


def test_bags_are_families_cut_up(sparse: Path) -> None:
    rows = {row.id: row for row in samples(sparse)}
    sizes = {}
    for side in SPLITS:
        for file in (sparse / "bags" / side).iterdir():
            made = list(read_jsonl(file, Bag, unique="id"))
            bags.check(made, list(rows))
            sizes[side, len(made[0].members)] = len(made)
            for bag in made:
                members = [rows[name] for name in bag.members]
                assert {row.split for row in members} == {side} and len({row.bag for row in members}) == 1
                assert len({looks(row) for row in members}) == len(members)
    # Families of 10, 10 and 4 in training, of 3 and 3 elsewhere.
    assert sizes == {
        ("train", 2): 12, ("train", 3): 7, ("train", 5): 4, ("train", 7): 2, ("train", 10): 2,
        ("validation", 2): 2, ("validation", 3): 2, ("test", 2): 2, ("test", 3): 2,
    }  # fmt: skip


def test_another_strategy_captions_the_same_images(sparse: Path, boosted: Path) -> None:
    for one, other in zip(samples(sparse), samples(boosted), strict=True):
        assert (one.id, one.things, one.bag) == (other.id, other.things, other.bag)
        assert (sparse / one.image).read_bytes() == (boosted / other.image).read_bytes()
        found = judge(other.captions[0], [thing.marks for thing in other.things])
        assert found.precision == found.recall == 1.0


def test_the_card_and_the_manifest_count(boosted: Path) -> None:
    facts = json.loads((boosted / "manifest.json").read_text())
    card = " ".join((boosted / "README.md").read_text().split())
    assert facts["samples"]["train"]["images"] == 24 and facts["samples"]["test"]["marks, recall"] == 1.0
    assert facts["licences"] == {"CC0-1.0 (drawn by Fieldmark)": 36} and facts["plumbing"] == ""
    assert "--strategy holistic" in card and "| images | 24 | 6 | 6 |" in card and "Plumbing" not in card
    assert not (boosted / "attribution.csv").exists() and (boosted / "sheets" / "test-01.png").is_file()
    assert all(row.captions and not row.refused for row in read_jsonl(boosted / "captions.jsonl", CaptionResult))


def test_the_same_bytes_whatever_the_threads_and_more_training_leaves_the_test_alone(tmp_path: Path) -> None:
    few = [
        "--train",
        "4",
        "--validation",
        "3",
        "--test",
        "3",
        "--family",
        "2",
        "--held-out-family",
        "3",
        "--sheet",
        "0",
    ]
    one = make(tmp_path / "a", *few, "--workers", "1", "--strategy", "blend")
    assert one["hash"] == make(tmp_path / "b", *few, "--workers", "4", "--strategy", "blend")["hash"]
    more = make(tmp_path / "c", *few[2:], "--train", "6", "--strategy", "blend")
    assert more["hashes"]["test.jsonl"] == one["hashes"]["test.jsonl"] and more["hash"] != one["hash"]
    assert one == make(tmp_path / "a", *few, "--strategy", "blend"), "a whole folder is left as it is"


BAD = [
    (["--strategy", "blnd"], "unknown strategy 'blnd'. Did you mean 'blend'?"),
    (["--source", "pokcet"], "unknown source of captioned images 'pokcet'. Did you mean 'pocket'?"),
    (["--level", "harder"], "unknown level 'harder'"),
    (["--strategy", "holistic", "--most-words", "3", "--least-words", "1"], "every caption was rejected (too long)"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_settings_are_one_clear_error(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(FieldmarkError) as error:
        make(tmp_path / "out", "--train", "2", "--validation", "0", "--test", "0", *flags)
    assert message in str(error.value)
    assert not (tmp_path / "out" / "train.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 while images are drawn and while captions are written, then run again until it ends."""
    flags = ["--train", "40", "--validation", "6", "--test", "6", "--strategy", "holistic", "--sheet", "3"]
    moments = {"listed.part.jsonl": 20_000, "captions.part.jsonl": 2_000}
    killed, whole = killed_and_whole("captions.py", flags, moments, tmp_path)
    assert contents(killed) == contents(whole)
