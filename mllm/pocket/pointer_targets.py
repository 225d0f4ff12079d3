"""Pointer targets: which earlier token each decision of an answer depends on, to supervise attention in pre-training.

Small models learn to find an earlier token late and by chance, so a throwaway head half-way up predicts it.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from mllm.metrics.reasoning import VERDICTS

Pointer = tuple[int, int]
"""(the deciding token, the earlier token that it depends on), as positions in the task's tokens."""

Encode = Callable[[str], list[int]]


def pointers(tokens: Sequence[int], start: int, sought: Sequence[str], encode: Encode) -> list[Pointer]:
    """Return all pointers of an answer, sorted.

    `tokens` are prompt and answer, which begins at `start`; `sought` are the marks that candidates are compared with,
    empty if nothing is compared.
    """
    found = [*_boxes(tokens, start, encode), *_number(tokens, start, encode), *_marks(tokens, start, sought, encode)]
    return sorted(found)


def _boxes(tokens: Sequence[int], start: int, encode: Encode) -> list[Pointer]:
    """A repeated box: each of its numbers points to the previous occurrence of that box."""
    (comma,), (corner,) = encode(","), encode("),(")
    last: dict[tuple[int, ...], int] = {}
    found: list[Pointer] = []
    for place in range(len(tokens) - 7):
        if (tokens[place + 2], tokens[place + 4], tokens[place + 6]) != (comma, corner, comma):
            continue
        box = tuple(tokens[place + 1 : place + 8 : 2])
        if box in last and place + 1 >= start:
            found += [(place + step, last[box] + step + 1) for step in (0, 2, 4, 6)]
        last[box] = place
    return found


def _number(tokens: Sequence[int], start: int, encode: Encode) -> list[Pointer]:
    """The number after "So" points to where the answer listed it; a number that opens the thought has no space before
    it, and so is another token."""
    (so,) = encode("So")
    if so not in tokens[start:]:
        return []
    place = tokens.index(so, start)
    chosen = tokens[place + 1]
    opening = {encode(f" {number}")[0]: encode(str(number))[0] for number in range(1, 10)}.get(chosen)
    if tokens[start + 1] == opening:
        return [(place, start + 1)]
    return [(place, at) for at in range(start, place) if tokens[at] == chosen][:1]


def _marks(tokens: Sequence[int], start: int, sought: Sequence[str], encode: Encode) -> list[Pointer]:
    """A mark that is about to be judged points to the mark of its kind among those sought."""
    if not sought:
        return []
    (comma,) = encode(",")
    verdicts = {encode(f" {word}")[0] for word in VERDICTS}
    judged = [place for place in range(start, len(tokens)) if tokens[place] in verdicts]
    phrase = encode(f" {', '.join(sought)}")
    head = max(at for at in range(judged[0]) if list(tokens[at : at + len(phrase)]) == phrase)
    cuts = [head - 1, *(head + k for k, token in enumerate(phrase) if token == comma), head + len(phrase)]
    ends = [cut - 1 for _, cut in pairwise(cuts)]
    single = [place for place in judged if tokens[place - 1] != comma]
    return [(place - 1, ends[k % len(ends)]) for k, place in enumerate(single)]
