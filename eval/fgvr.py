"""The old name of `eval/naming.py --options 4`; it goes with the next release."""

from __future__ import annotations

if __name__ == "__main__":
    from mllm import ctrl_c

    ctrl_c.end_at_once()  # while the imports below run

import runpy
import sys
from pathlib import Path

from mllm.cli.programs import run_program

OLD = ["--options", "4", "--out", "runs/fgvr", "--max-new-tokens", "64"]
"""What was its default; flags after these win."""


def main() -> None:
    """Warn, and run the program under its new name with the same flags."""
    print(
        "warning: eval/fgvr.py is now eval/naming.py --options 4; the old name goes with the next release",
        file=sys.stderr,
    )
    sys.argv[1:1] = OLD
    runpy.run_path(str(Path(__file__).with_name("naming.py")), run_name="__main__")


if __name__ == "__main__":
    run_program(main)
