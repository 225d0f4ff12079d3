"""Which marks no photo can show: sounds, smells, temper, places, weights, engines, and what a thing is used for.

Words only, no model. A mark with a visible word beside such a one (`large, fragrant flowers`) is kept.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from mllm.knowledge.card_files import Card, Mark

_SEEN = re.compile(
    r"shaped|like\b|colou?r|marked|striped|spotted|legged|"
    r"\b(?:red|orange|yellow|green|blue|purple|violet|pink|white|black|brown|gr[ae]y|golden|silver|tan|dark|bright|pale|"
    r"large|big|small|tiny|tall|short|long|wide|narrow|thin|thick|slender|stocky|plump|round\w*|oval|pointed|curved|flat|"
    r"upright|bushy|fluffy|woody|creamy|climbing|trailing|muscular|leather|sauce|badge|logo|emblem|lettering|wheels|caps?|buttons?|controls)\b",
    re.IGNORECASE,
)
"""Words that a photo can bear out; they keep a mark from being dropped for one of `_BESIDE`."""
_START = r"^(?:(?:it|is|are|they|can|may|be|often|usually|typically|commonly|mostly|primarily|generally|also)\s+)*"
_LENGTH = r"(?:feet|foot|ft|inch(?:es)?|[ckm]?m|(?:centi|kilo|milli)?met(?:er|re)s?|yards?)"
_WHOLE = {
    "sound": r"\b(?:songs?|sings?|singing|voice|vocal\w*|calls?|croak\w*|chirp\w*|barks|barking|meow\w*|purr\w*|"
    r"roar\w*|howl\w*|loud|nois[ey]\w*|melodious)\b|\b(?:make|makes|making)\b.*\bsounds?\b",
    "smell or taste": r"\b(?:fragrances?|scents?|odou?rs?|smells?|aromas?|tastes?|flavou?rs?|flavou?red)\b",
    "temper or behaviour": r"\b(?:energy|energetic|friendly|friendliness|temperaments?|personalit\w+|intelligen\w+|"
    r"loyal\w*|playful\w*|affectionate|lively|gentle (?:nature|with)|good with|easy to (?:train|groom)|trainab\w+|"
    r"obedient|docile|stubborn|protective of|independent nature|behaviou?rs?|temper|social|"
    r"hypoallergenic|sheds|lifespan|life span)\b",
    "place": _START
    + r"(?:found|native|endemic|lives?|living|nests?|nesting|migrat\w+|grows?|occurs?|inhabits?|originat\w+)\b"
    r"(?!.*\b(?:clusters?|clumps?|pairs?|mounds?|groups?|bunch(?:es)?|rosettes?|rows?)\b)|"
    r"\bnative to\b|\bhabitats?\b|\bpollinat\w+|\broot systems?\b",
    "weight or size in units": r"\bweigh(?:s|t|ing)?\b|\b\d[\d., -]*(?:kg|kilo\w*|pounds?|lbs?|grams?)\b|"
    rf"{_START}(?:grows?|growing|reach(?:es)?)\b.*\d[\d.,/ -]*{_LENGTH}\b",
    "season or age": r"\bbloom(?:s|ing)? (?:in(?! (?:shades|clusters|colou?rs))|for|from|during|all|lasting)\b|"
    r"\b(?:in|during)(?: the| early| late)* (?:spring|summer|autumn|winter)\b|\bmodel year\b",
    "use": r"\b(?:served|eaten|enjoyed) (?:for|hot|cold|warm|chilled)\b|"
    r"\b(?:served|eaten|used|kept|bred) as an? (?:\w+ )?"
    r"(?:dip|snack|dessert|appeti[sz]er|starter|meal|dish|course|pet|guard|ornamental)\b|"
    r"\beats\b|^feeds on\b|\bdiet\b",
    "engine or equipment": r"\btransmission\b|\bwheel[- ]drive\b|\bhorsepower\b|\btorque\b|\bturbocharged\b|"
    r"\bsuspension\b|\b(?:cruise|climate|stability|traction) control\b|\bair ?bags?\b|^navigation|\baudio system\b|"
    r"\bspeakers?\b|\bbluetooth\b|\bkeyless\b|\bregenerative\b|"
    r"\bfuel (?:economy|efficien\w+|injection)\b|\b(?:top|maximum) speed\b|\bseating capacity\b|\bsafety features\b|"
    r"\bmid-engine layout\b|\banti-?lock\b",
    "power equipment": r"^(?:an? )?power(?:[- ](?:adjustable|driver'?s?|front|rear))*[- ]"
    r"(?:windows?(?: and locks)?|locks|steering|brakes|seats?|liftgate|tailgate)$",
    "kind": r"^(?:an? )?(?:\w+ )?breed of \w+$",
}
_BESIDE = {
    "smell or taste": r"\b(?:fragrant|scented|aromatic|pungent|spicy|savou?ry|tender|delicious|edible|toxic|"
    r"poisonous)\b|flavou?red",
    "temper or behaviour": r"\b(?:active|alert and|intelligent|curious|confident)\b",
    "weight or size in units": rf"(?:wingspan|length|heights?|diameter)\b\D*(?:\d|two|three|four|five).*\b{_LENGTH}\b",
    "use": r"\bused (?:for|to)\b",
    "season or age": r"\b(?:annual|biennial|perennials?|hardy|nocturnal)\b",
    "engine or equipment": r"\b[VW]-?\d+\b|\d(?:\.\d)?[ -]?(?:l|lit(?:er|re)s?)\b|\b\w+-lit(?:er|re)\b|\bcylinder\b|"
    r"\bheated (?:\w+ )?seats?\b|"
    r"\b(?:hybrid|electric) (?:engine|motor|powertrain)\b",
    "ingredient": _START
    + r"(?:made (?:with|from|of)|contains?)\b(?!.*\bdough\b).*\b(?:eggs?|milk|flour|sugar|butter|broth|spices)\b",
}
_RULES = [
    *((reason, re.compile(rule, re.IGNORECASE), False) for reason, rule in _WHOLE.items()),
    *((reason, re.compile(rule, re.IGNORECASE), True) for reason, rule in _BESIDE.items()),
]


def unseen(mark: str) -> str | None:
    """Return why no photo can show a mark, as a short stable phrase; None where one can.

    >>> unseen("found in North America"), unseen("large, fragrant flowers")
    ('place', None)
    """
    for reason, rule, excused in _RULES:
        if rule.search(mark) and not (excused and _SEEN.search(mark)):
            return reason
    return None


def without_unseen(cards: Iterable[Card]) -> tuple[list[Card], list[tuple[Card, Mark, str]]]:
    """Split off the marks that no photo can show: the cards without them, and (card, mark, reason) of each."""
    kept, dropped = [], []
    for card in cards:
        reasons = {mark: reason for mark in card.marks if (reason := unseen(mark.text))}
        dropped += [(card, mark, reason) for mark, reason in reasons.items()]
        kept.append(replace(card, marks=tuple(mark for mark in card.marks if mark not in reasons)))
    return kept, dropped
