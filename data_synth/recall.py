"""Write what cards say as plain questions; mixed into SFT, they keep a model from forgetting what it knew.

    python data_synth/knowledge.py          # the pocket world: -> runs/pocket/knowledge/cards
    python data_synth/recall.py             # -> runs/pocket/knowledge/recall.jsonl
    python data_synth/recall.py --knowledge runs/birds/cards --out runs/birds/recall.jsonl
    accelerate launch recipes/sft.py --mix runs/pocket/knowledge/recall.jsonl

The story: cards are read -> each entity's marks are asked for in every wording that can be filled (cards that name no
domain leave out those with a noun) -> one row a question. Nothing is drawn: the same cards give the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mllm.cli.programs import run_program
from mllm.errors import FieldmarkError
from mllm.knowledge import card_files, domains
from mllm.knowledge.cards import Cards, load_cards
from mllm.prompting import questions
from mllm.records import write_jsonl

if TYPE_CHECKING:
    from mllm.training.trl_adapter import Exchange

console = Console(stderr=True)


def exchanges(cards: Cards) -> Iterator[Exchange]:
    """Yield questions and answers about every card that has a mark."""
    from mllm.training.trl_adapter import Exchange  # loads torch

    for entity in cards:
        card = cards.card(entity)
        if card.used:
            noun = domains.load(card.domain).noun if card.domain else None
            for number, question in enumerate(questions.recalls(entity, noun)):
                yield Exchange(f"recall/{entity}/{number}", question, f"{entity}: {', '.join(card.used)}.")


def command(
    knowledge_files: Annotated[
        list[str] | None, typer.Option("--knowledge", help="file or folder of cards [runs/pocket/knowledge/cards]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="file to write [recall.jsonl beside the first of them]")] = None,
) -> None:
    """Write what cards say as plain questions, for `mix`."""
    named = knowledge_files or ["runs/pocket/knowledge/cards"]
    cards = load_cards(*card_files.files_of(named))
    file = out or Path(named[0]).parent / "recall.jsonl"
    rows = list(exchanges(cards))
    if not rows:
        raise FieldmarkError(f"{cards.origin}: no card holds a mark that may be used, so there is nothing to ask")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, rows)
    mute = sum(not cards[entity] for entity in cards)
    told = f"; {mute} cards without a mark were left out" if mute else ""
    console.print(f"{file}: {len(rows)} questions about {len(cards) - mute} entities{told}", highlight=False)


def main(argv: list[str] | None = None) -> None:
    """Run the program."""
    run_program(command, argv)


if __name__ == "__main__":
    main()
