"""The model card: metadata that the Hub accepts, the facts, and nothing that breaks out of its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.training import model_card

CONVENTION = families.Convention("pocket", "think", families.load("pocket").budget)


def facts(**more) -> model_card.ModelFacts:
    defaults = {
        "name": "birds",
        "base": "pocket",
        "how": "Fine-tuned.",
        "convention": CONVENTION,
        "command": "accelerate launch recipes/sft.py",
    }
    return model_card.ModelFacts(**(defaults | more))


def test_the_card_states_the_facts(tmp_path: Path) -> None:
    score = model_card.MeasuredShare("Acc@0.5", 0.5, 0.26, 0.74, 14, "data/validation.jsonl")
    given = facts(
        adapter=True, base="Qwen/Qwen3-VL-8B-Instruct", data={"rows": 8, "a|b": "x\ny"}, licences={"CC BY 4.0": 7},
        settings={"lora": {"r": 4}}, versions={"torch": "2"}, tags=("sft",),
    )  # fmt: skip
    card = ModelCard.load(model_card.write(tmp_path, given, [score]))
    data = card.data
    assert (data["library_name"], data["pipeline_tag"]) == ("peft", "image-text-to-text")
    assert data["model_name"] == "birds" and card.text.lstrip().startswith("# birds\n")
    assert data["base_model"] == "Qwen/Qwen3-VL-8B-Instruct" and data["tags"] == ["fieldmark", "pocket", "sft"]
    assert data["eval_results"][0].metric_value == 0.5 and "n=14" in data["eval_results"][0].metric_name
    assert "| Acc@0.5 | 50.0 | 26.0 to 74.0 | 14 | data/validation.jsonl |" in " ".join(card.text.split())
    text = " ".join(card.text.split())
    assert r"| a\|b | x y |" in text and "| CC BY 4.0 | 7 |" in text and '{"r": 4}' in card.text
    assert "A LoRA adapter" in card.text and "Reason in <think></think>" in card.text and "version 1" in card.text


def test_no_score_is_claimed_that_was_not_measured(tmp_path: Path) -> None:
    card = ModelCard.load(model_card.write(tmp_path, facts()))
    assert card.data["eval_results"] is None and card.data["base_model"] is None, "a folder is not a name on the Hub"
    assert "Not measured" in card.text and "name no licence" in card.text


def test_a_merged_model_keeps_the_card(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    model_card.copy_card(tmp_path / "a", tmp_path / "b", "n")
    assert not (tmp_path / "b" / "README.md").exists()
    model_card.write(tmp_path / "a", facts(adapter=True))
    model_card.copy_card(tmp_path / "a", tmp_path / "b", "Made by merging.")
    card = ModelCard.load(tmp_path / "b" / "README.md")
    assert card.data["library_name"] == "transformers" and "Made by merging." in card.text
    assert "LoRA" not in card.text and "## Limits" in card.text
    (tmp_path / "a" / "README.md").write_text("---\n[1, 2]\n---\nx")
    with pytest.raises(FieldmarkError, match="metadata cannot be read"):
        model_card.copy_card(tmp_path / "a", tmp_path / "b", "n")


def test_the_base_is_what_the_first_run_began_with(tmp_path: Path) -> None:
    """An adapter of an adapter, and whole weights trained twice: the Hub wants the name at the beginning."""
    from mllm.training.model_card import original_base

    for name, model in (("sft", "Qwen/Qwen3-VL-8B-Instruct"), ("rl", str(tmp_path / "sft" / "best"))):
        (tmp_path / name / "best").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps({"settings": {"model": model}}), encoding="utf-8")
    assert (
        original_base(str(tmp_path / "rl" / "best"))
        == original_base(str(tmp_path / "rl"))
        == "Qwen/Qwen3-VL-8B-Instruct"
    )
    assert original_base("pocket") == "pocket"
