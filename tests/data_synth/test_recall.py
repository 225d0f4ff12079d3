"""What cards say, as plain questions: the pocket base's own words, and rows that SFT takes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_synth import recall as program
from mllm.errors import FieldmarkError
from mllm.io.jsonl import read_jsonl
from mllm.knowledge import card_files
from mllm.knowledge.card_files import Card, Mark
from mllm.knowledge.cards import Cards, save_cards
from mllm.pocket.pretraining_tasks import card
from mllm.pocket.species import NOUNS, species
from mllm.training.trl_adapter import Exchange


def test_a_card_with_a_domain_is_asked_for_in_every_wording() -> None:
    """Against a species of the pocket world: the question and the answer that its base was taught."""
    one = species()[0]
    rows = list(program.exchanges(Cards({one.name: Card(one.name, one.domain, tuple(map(Mark, one.marks)))})))
    assert len(rows) == 6 and len({row.id for row in rows}) == 6
    assert {row.answer for row in rows} == {card(one)}
    assert f"Tell me about the {NOUNS[one.domain]} {one.name}." in {row.question for row in rows}


def test_marks_alone_are_asked_for_without_a_noun(tmp_path: Path) -> None:
    file = tmp_path / "knowledge.json"
    save_cards(file, {"black redstart": ["orange tail", "sooty breast"]})
    program.main(["--knowledge", str(file)])
    rows = list(read_jsonl(tmp_path / "recall.jsonl", Exchange, unique="id"))
    assert [row.question for row in rows] == [
        "What are the marks of black redstart?",
        "Describe black redstart.",
        "How do I know black redstart?",
        "black redstart: marks?",
    ]
    assert {row.answer for row in rows} == {"black redstart: orange tail, sooty breast."}


def test_marks_that_were_not_seen_are_not_taught(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, unseen = tmp_path / "bird.yaml", Mark("white rump", verified=False)
    cards = [Card("black redstart", "bird", (Mark("orange tail"), unseen)), Card("common redstart", "bird", (unseen,))]
    card_files.write(file, cards)
    program.main(["--knowledge", str(file), "--out", str(tmp_path / "new" / "rows.jsonl")])
    rows = list(read_jsonl(tmp_path / "new" / "rows.jsonl", Exchange, unique="id"))
    assert {row.answer for row in rows} == {"black redstart: orange tail."}
    assert "6 questions about 1 entities; 1 cards without a mark were left out" in " ".join(
        capsys.readouterr().err.split()
    )
    card_files.write(file, cards[1:])
    with pytest.raises(FieldmarkError) as error:
        program.main(["--knowledge", str(file)])
    assert "no card holds a mark" in str(error.value) and not (tmp_path / "recall.jsonl").exists()
