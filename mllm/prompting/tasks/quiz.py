"""Ask what a model knows: one of four names, or marks (`mllm.evaluation.knowledge_probe` writes and grades them)."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from mllm.prompting.tasks import BaseTask

LETTERS = ascii_uppercase
_LETTER = re.compile(r"\W*\b([A-Z])(?=\s*(?:$|[.):,;\]*\n]))")  # "A wren" begins with an article, not with a letter
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def read_choice(text: str, names: Sequence[str]) -> int | None:
    """Return which of the names an answer chooses, None where it cannot be decided.

    The answer is what follows the thought, if there is one: the text of the last `<answer>` tags, else all. It chooses
    by the letter of a name at its beginning (`B`, `(B)`, `B. Boeing 747`), or by naming exactly one of the names.
    """
    text = text.rpartition("</think>")[2]
    tagged = _TAGGED.findall(text)
    answer = (tagged[-1] if tagged else text).strip()
    if (letter := _LETTER.match(answer)) and letter[1] in LETTERS[: len(names)]:
        return LETTERS.index(letter[1])
    named = [k for k, name in enumerate(names) if re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", answer.lower())]
    longest = [k for k in named if not any(names[k].lower() in names[j].lower() for j in named if j != k)]
    return longest[0] if len(longest) == 1 else None


class Task(BaseTask):
    """`Sample.options` are the names to choose from. Not trained on: a quiz measures what a model knows."""

    has_boxes = False
