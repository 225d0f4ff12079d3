"""Write what cards say as plain questions; mixed into SFT, they keep a model from forgetting what it knew.

    python data_synth/knowledge.py          # the pocket world: -> runs/pocket/knowledge/cards
    python data_synth/recall.py             # -> runs/pocket/knowledge/recall.jsonl
    python data_synth/recall.py --knowledge runs/birds/cards --out runs/birds/recall.jsonl
    accelerate launch recipes/sft.py --mix runs/pocket/knowledge/recall.jsonl

Each entity's marks are asked for in every wording that can be filled (cards without a domain leave out wordings with a
noun), one row per question. Nothing is random: the same cards give the same file.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mllm.cli.programs import parse, run_program
from mllm.errors import FieldmarkError
from mllm.io.jsonl import write_jsonl
from mllm.knowledge import card_files, domains
from mllm.knowledge.cards import Cards, load_cards
from mllm.prompting import questions

if TYPE_CHECKING:
    from mllm.training.trl_adapter import Exchange

CARDS = "runs/pocket/knowledge/cards"


@dataclass(frozen=True)
class RecallOptions:
    """Which cards are read and which file is written."""

    knowledge: tuple[str, ...] = ()
    """file or folder of cards (may be repeated); default: runs/pocket/knowledge/cards"""
    out: Path | None = None
    """file to write; default: recall.jsonl beside the first of them"""


def exchanges(cards: Cards) -> Iterator[Exchange]:
    """Yield questions and answers about every card that has a mark."""
    from mllm.training.trl_adapter import Exchange  # loads torch

    for entity in cards:
        card = cards.card(entity)
        if card.used:
            noun = domains.load(card.domain).noun if card.domain else None
            for number, question in enumerate(questions.recalls(entity, noun)):
                yield Exchange(f"recall/{entity}/{number}", question, f"{entity}: {', '.join(card.used)}.")


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(RecallOptions, argv)
    named = options.knowledge or (CARDS,)
    cards = load_cards(*card_files.files_of(named))
    file = options.out or Path(named[0]).parent / "recall.jsonl"
    rows = list(exchanges(cards))
    if not rows:
        raise FieldmarkError(f"{cards.origin}: no card holds a mark that may be used, so there is nothing to ask")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, rows)
    empty = sum(not cards[entity] for entity in cards)
    left_out = f"; {empty} cards without a mark were left out" if empty else ""
    console = Console(stderr=True)
    console.print(f"{file}: {len(rows)} questions about {len(cards) - empty} entities{left_out}", highlight=False)


if __name__ == "__main__":
    run_program(main)
