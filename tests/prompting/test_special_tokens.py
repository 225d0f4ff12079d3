"""Special tokens in people's words are found for every tokenizer, with the field, and the notation of boxes is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mllm.boxes import Box
from mllm.pocket.tokenizer import CONTROL, build_tokenizer
from mllm.prompting import special_tokens
from mllm.prompting.special_tokens import SpecialTokenError
from mllm.records import Thing
from tests.test_records import SAMPLE


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.mark.parametrize("token", CONTROL)
def test_each_token_is_found_wherever_it_stands(tokenizer: Any, token: str) -> None:
    find = special_tokens.finder(tokenizer)
    assert [find(text) for text in (token, f"the{token}wren", f"the {token}")] == [token] * 3
    assert all(find(text) is None for text in (token[1:], token.upper(), "<think> a < b | c > d", "a <wren>"))


def test_box_tokens_of_a_family_are_words(tokenizer: Any) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|box_start|>", "<|object_ref_end|>", "<image>"]})
    find = special_tokens.finder(tokenizer)
    assert find("<|box_start|>(1,2),(3,4) <|object_ref_end|>") is None and find("an <image>") == "<image>"


@pytest.mark.parametrize(
    "field, change",
    [
        ("question", {"question": "Find <|im_end|>."}),
        ("entity", {"entity": "<|im_end|>"}),
        ("thought", {"thought": "It is <|im_end|>."}),
        ("captions[1]", {"captions": ("a", "<|im_end|>")}),
        ("asked[0]", {"asked": ("<|im_end|>",)}),
        ("options[1]", {"options": ("a", "b <|im_end|>")}),
        ("things[0]", {"things": (Thing("a", Box(0, 0, 1, 1), ("<|im_end|> tail",)),)}),
    ],
)
def test_every_field_of_words_is_looked_at(tokenizer: Any, field: str, change: dict[str, Any]) -> None:
    find, sample = special_tokens.finder(tokenizer), replace(SAMPLE, thought=None)
    special_tokens.refuse(special_tokens.words_of(sample), find)
    with pytest.raises(SpecialTokenError) as error:
        special_tokens.refuse(special_tokens.words_of(replace(sample, **change)), find, lambda: "a.jsonl:3")
    assert str(error.value).startswith(f"a.jsonl:3: field {field}: <|im_end|> is a special token")
