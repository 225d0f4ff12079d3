"""`fieldmark doctor`: versions that do not go together are named, and cards that are too small are told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm.errors import ConfigError
from mllm.io.installation import program_folder
from mllm.training.preflight import doctor


def test_installed_versions_fit_and_others_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line for line in doctor.misfits() if line.startswith("fieldmark")] == []
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "9.9" if name == "transformers" else real(name))
    assert any("fieldmark asks for transformers<5.24,>=5.23, and 9.9 is installed" in one for one in doctor.misfits())


TWICE, RANGE, SERVER = "tokens out twice (huggingface/trl#6294)", "TRL 1.16 speaks to vLLM", "--enable-scale-out"
TOWER = "`fieldmark merge` the adapter"
PAIRED = [
    ({"trl": "1.16.0", "vllm": "0.29.1"}, [TWICE]),
    ({"trl": "1.16.0", "vllm": "0.21.0"}, [TWICE, RANGE]),
    ({"trl": "1.16.0", "vllm": "0.32.0"}, [TWICE, RANGE, SERVER]),
    ({"trl": "1.16.0", "vllm": "0.30.0+cu129"}, [TWICE, SERVER]),
    ({"trl": "1.17.0", "vllm": "0.32.0"}, []),
    ({"peft": "0.21.2", "vllm": "0.29.1"}, [TOWER]),
    ({"torch": "2.13.0+cpu", "torchvision": "0.29.0"}, ["0.29 and later need torch 2.14"]),
    ({"torch": "2.14.1", "torchvision": "0.28.0+cu130"}, ["up to 0.28 for 2.13"]),
    ({"torch": "2.13.0", "torchvision": "0.28.0"}, []),
    ({"torch": "2.14.0", "torchvision": "0.29.0"}, []),
    ({"trl": "1.16.0", "ms-swift": "4.5.0"}, ["give it an environment of its own"]),
]


def test_nothing_installed_here_is_known_to_be_bad() -> None:
    assert doctor.bad_pairs() == []


@pytest.mark.parametrize(("there", "told"), PAIRED, ids=[" ".join(there.values()) for there, _ in PAIRED])
def test_known_bad_pairs_are_told_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, str], told: list[str]
) -> None:
    def version(name: str) -> str:
        if name not in there:
            raise doctor.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(doctor, "version", version)
    found = doctor.bad_pairs()
    assert len(found) == len(told)
    for line, words in zip(found, told, strict=True):
        assert words in line and "Way out: " in line and all(number in line for number in there.values())


def test_every_known_pair_is_tried() -> None:
    tried = [words for _, told in PAIRED for words in told]
    for pair in doctor.PAIRS:
        assert any(words in f"{pair.what}. Way out: {pair.way_out}" for words in tried), pair


def test_memory_and_disk_are_plausible(tmp_path: Path) -> None:
    told = doctor.memory()
    assert told is not None
    total, free = told
    assert 0 < free <= total and doctor.disk(tmp_path) > 0


@pytest.mark.ci
def test_a_recipe_fits_the_card_it_is_for_and_no_smaller_one() -> None:
    file = program_folder("recipes") / "one_card_qwen3vl_2b_sft.yaml"
    needs, fits = doctor.peak(file, 24)
    assert fits and 1 < needs < 24
    assert doctor.peak(file, 2) == (needs, False)
    with pytest.raises(ConfigError, match="no such recipe"):
        doctor.peak(Path("gone.yaml"), 24)
