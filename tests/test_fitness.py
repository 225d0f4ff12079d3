"""`fieldmark doctor`: versions that do not go together are named, and cards that are too small are told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm import fitness
from mllm.errors import ConfigError


def test_installed_versions_fit_and_others_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line for line in fitness.misfits() if line.startswith("fieldmark")] == []
    real = fitness.version
    monkeypatch.setattr(fitness, "version", lambda name: "9.9" if name == "transformers" else real(name))
    assert any("fieldmark asks for transformers<5.24,>=5.23, and 9.9 is installed" in one for one in fitness.misfits())


def test_known_bad_pairs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitness.bad_pairs() == []
    real = fitness.version
    monkeypatch.setattr(fitness, "version", lambda name: "0.30" if name == "vllm" else real(name))
    assert any("trl with vllm: GRPO with vLLM spells pictures' tokens out twice" in one for one in fitness.bad_pairs())


def test_memory_and_disk_are_plausible(tmp_path: Path) -> None:
    told = fitness.memory()
    assert told is not None
    total, free = told
    assert 0 < free <= total and fitness.disk(tmp_path) > 0


@pytest.mark.ci
def test_a_recipe_fits_the_card_it_is_for_and_no_smaller_one() -> None:
    file = fitness.recipes_folder() / "one_card_qwen3vl_2b_sft.yaml"
    needs, fits = fitness.peak(file, 24)
    assert fits and 1 < needs < 24
    assert fitness.peak(file, 2) == (needs, False)
    with pytest.raises(ConfigError, match="no such recipe"):
        fitness.peak(Path("gone.yaml"), 24)
