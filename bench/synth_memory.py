"""Whether peak memory grows with the number of synthesized samples.

    python bench/synth_memory.py

Makes pocket sets of 200, 1,000 and 2,000 training samples from the same photos, with all kinds of questions, each in a
separate process, and prints the process's peak memory (ru_maxrss).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "data_synth" / "grounding.py"
FLAGS = (
    "--domain bird --validation 0 --test 0 --photos-per-entity 12 --descriptions 0.2 --absent 0.1 --several 0.1".split()
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 1000, 2000])
    for count in parser.parse_args().samples:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            peak = _peak(["--train", str(count), *FLAGS, "--out", f"{folder}/data"])
            print(f"{count:6} samples: peak {peak / 1024:.1f} MiB, {time.perf_counter() - started:.0f} s", flush=True)


def _peak(flags: list[str]) -> int:
    """Run the program in a child of a child, so that `RUSAGE_CHILDREN` counts only it; return KiB."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        subprocess.run([sys.executable, str(PROGRAM), *flags], check=True, stderr=subprocess.DEVNULL)
        os.write(writer, str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit("data_synth/grounding.py failed")
    return int(os.read(reader, 32))


if __name__ == "__main__":
    main()
