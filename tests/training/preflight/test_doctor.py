"""`fieldmark doctor`: incompatible versions are named, and GPUs that are too small are recognised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mllm.errors import ConfigError
from mllm.io.files import program_folder
from mllm.training import recipe
from mllm.training.preflight import doctor
from mllm.training.preflight.run_spec import read_hardware


def test_installed_versions_fit_and_others_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line for line in doctor.unmet_requirements() if line.startswith("fieldmark")] == []
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "9.9" if name == "transformers" else real(name))
    assert any(
        "fieldmark requires transformers<5.25,>=5.23, but 9.9 is installed" in one
        for one in doctor.unmet_requirements()
    )


TWICE, RANGE, SERVER = "image tokens twice (huggingface/trl#6294)", "TRL 1.16 supports vLLM", "--enable-scale-out"
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
    ({"trl": "1.16.0", "ms-swift": "4.5.0"}, ["install it in a separate environment"]),
]


def test_the_installed_versions_have_no_known_conflict() -> None:
    assert doctor.known_conflicts() == []


@pytest.mark.parametrize(("there", "expected"), PAIRED, ids=[" ".join(there.values()) for there, _ in PAIRED])
def test_known_conflicts_are_reported_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, str], expected: list[str]
) -> None:
    def version(name: str) -> str:
        if name not in there:
            raise doctor.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(doctor, "version", version)
    found = doctor.known_conflicts()
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert words in line and "To fix: " in line and all(number in line for number in there.values())


def test_every_known_conflict_is_tried() -> None:
    tried = [words for _, expected in PAIRED for words in expected]
    for *_, problem, fix in doctor.CONFLICTS:
        assert any(words in f"{problem}. To fix: {fix}" for words in tried), problem


def test_memory_and_disk_are_plausible(tmp_path: Path) -> None:
    found = doctor.memory()
    assert found is not None
    total, free = found
    assert 0 < free <= total and doctor.free_disk(tmp_path) > 0


@pytest.mark.ci
def test_a_recipe_fits_the_gpu_it_is_for_but_not_a_smaller_one() -> None:
    file = program_folder("recipes") / "one_card_qwen3vl_2b_sft.yaml"
    needs, fits = doctor.peak_memory(file, 24)
    assert fits and 1 < needs < 24
    assert doctor.peak_memory(file, 2) == (needs, False)
    with pytest.raises(ConfigError, match="no such recipe"):
        doctor.peak_memory(Path("gone.yaml"), 24)


@pytest.mark.ci
def test_the_headers_of_recipes_name_the_memory_that_doctor_names() -> None:
    found = {}
    for file in sorted(program_folder("recipes").glob("*.yaml")):
        stated = re.search(r"(\d+) GiB(?: a GPU)? for the longest rows", file.read_text(encoding="utf-8"))
        if stated:
            machine = read_hardware(recipe.accelerate_file(file))
            needs, _ = doctor.peak_memory(file, machine.gpu_memory, machine.processes)
            found[file.name] = stated[1], f"{round(needs, 1):.0f}"
    assert len(found) == 16 and {name: one for name, one in found.items() if one[0] != one[1]} == {}
