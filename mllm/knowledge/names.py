"""How names of entities are compared.

Names are equal without regard to case, underscores, hyphens, apostrophes and accents (`normalize_name`). A card is also
found where a name is a plural, parts its words otherwise, begins with the number of a class
("001.Black_footed_Albatross") or lacks a last word like "cat" or "terrier" (`spelling`).
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_KINDS = frozenset("cat dog bird flower car aircraft plane animal plant terrier hound spaniel pointer".split())
"""Last words that a name may lack: "Siamese" is "Siamese cat", "American pit bull" the terrier."""
_CLASS_NUMBER = re.compile(r"(?:(?:\d+|n\d{8})[\s._-]+)+(?=[^\W\d])")
"""Of a class in front of its name, as CUB ("1 001.Black_footed_Albatross") and ImageNet write it."""
_ENDINGS = (
    *(("ies", "i"), ("ie", "i"), ("y", "i"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss")),
    *(("uses", "us"), ("ises", "is"), ("ss", "ss"), ("us", "us"), ("is", "is"), ("s", "")),
)
"""Endings of words, the first that fits, and what stands for them where singular and plural are compared."""


@lru_cache(maxsize=200_000)
def normalize_name(name: str) -> str:
    """Reduce a name to the form in which names are compared: `British_Shorthair` becomes `british shorthair`."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).replace("'", "").replace("’", "")
    return re.sub(r"[\W_]+", " ", plain).strip()


@dataclass(frozen=True, slots=True)
class Spelling:
    """A name taken apart for tolerant comparison: the number of its class, its words without spaces, its kind."""

    number: str
    core: str
    kind: str
    key: str = ""

    def fits(self, other: "Spelling") -> bool:
        """Whether two names with the same core can be the same: number and kind are equal, or one lacks them."""
        pairs = ((self.number, other.number), (self.kind, other.kind))
        return all(mine == its or not mine or not its for mine, its in pairs)


@lru_cache(maxsize=200_000)
def spelling(name: str) -> Spelling:
    """Take a name apart; two names can be the same if their cores are equal and they fit each other."""
    number = _CLASS_NUMBER.match(name.strip())
    words = [_singular(word) for word in normalize_name(name.strip()[number.end() if number else 0 :]).split()]
    kind = words.pop() if len(words) > 1 and words[-1] in _KINDS else ""
    return Spelling(number[0] if number else "", "".join(words), kind)


def _singular(word: str) -> str:
    """Write singular and plural alike; the result need not be a word: `cherries` and `cherry` become `cherri`."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word
