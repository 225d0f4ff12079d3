"""JSON of strangers: what Python's reader lets through or trips over becomes the one error that readers expect."""

from __future__ import annotations

import json
from json import JSONDecodeError
from pathlib import Path
from typing import Any


def loads(text: str | bytes, **how: Any) -> Any:
    """Parse JSON as `json.loads` does.

    Raises:
        JSONDecodeError: broken, not UTF-8, nested too deeply, or with a number of thousands of digits.
    """
    try:
        return json.loads(text, **how)
    except JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise JSONDecodeError(f"not UTF-8 at byte {error.start + 1}", "", 0) from None
    except RecursionError:
        raise JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise  # a hook's own
        raise JSONDecodeError("a number of too many digits", "", 0) from None


def load(path: Path) -> Any:
    """Parse a whole file, with or without a byte order mark. Raises as `loads`, and `OSError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise JSONDecodeError(f"not UTF-8 at byte {error.start + 1}", "", 0) from None
    return loads(text)
