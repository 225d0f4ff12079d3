"""The pocket examples' data: where the recipes look for it, and how it is made if it is missing."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mllm.config import Settings
from mllm.distributed import main_process_only
from mllm.errors import FieldmarkError
from mllm.io.files import program_folder

logger = logging.getLogger(__name__)

POCKET_DATA = Path("runs/pocket/data")
POCKET_CAPTIONS: dict[Path, tuple[str, ...]] = {
    Path("runs/pocket/captions"): ("--level=medium", "--out", "runs/pocket/captions"),
    Path("runs/pocket/captions-vcb"): ("--level=medium", "--strategy=holistic", "--out", "runs/pocket/captions-vcb"),
}
"""Captions of the pocket world as people write them and rewritten, by folder, with the flags of data_synth/captions.py
that make them. Look-alikes are medium: among hard ones the judge finds few even by captions that name every mark."""


def make_pocket_data(settings: Settings) -> None:
    """Make the pocket examples' data if this run needs it and it is missing; on the main process only."""
    for folder in dict.fromkeys(file.parent for file in settings.train if not file.is_file()):
        if folder == POCKET_DATA:
            main_process_only(partial(_make, "grounding", ()))
        elif folder in POCKET_CAPTIONS:
            main_process_only(partial(_make, "captions", POCKET_CAPTIONS[folder]))


def _make(name: str, flags: Sequence[str]) -> None:
    """Run a program of data_synth as a user would."""
    command = [str(program_folder("data_synth") / f"{name}.py"), *flags]
    words = f"python {' '.join(command)}"
    logger.info("making the pocket example's data: %s", words)
    if subprocess.run([sys.executable, *command], check=False).returncode:
        raise FieldmarkError(f"the pocket example's data could not be made: {words} failed (see above)")
