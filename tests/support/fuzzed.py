"""The fuzz test: parsers of model text and readers of every format, fed with what nobody should ever write.

    python tests/support/fuzzed.py --inputs 1000000        # `make fuzz`

Every parser either returns or raises an error of ours. Anything else is a crash; so are an input that takes longer than
`HANG` seconds and more memory than `MEMORY`. Where atheris is installed (extra `fuzz`), libFuzzer looks for inputs that
reach new code; elsewhere seeds are mutated at random. Each target runs in a process of its own, from seeds that are
valid, so that most inputs are nearly right. What fails is kept in --keep and is a seed the next time.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.fuzz_targets import Target, targets

HANG = 10
"""Seconds of processor time that one input may take."""
MEMORY = 4 * 2**30
"""Bytes of address space that a target may take."""
LONGEST = 4096
"""Bytes of an input."""


def guarded(run: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """Let errors of ours pass: they are what bad input should end in."""
    from mllm.errors import FieldmarkError

    def once(data: bytes) -> None:
        try:
            run(data)
        except FieldmarkError:
            return

    return once


def mutated(target: Target, count: int, seed: int, deadline: float, keep: Path) -> int:
    """Feed random mutations of the seeds; return how many. The first failure is kept and raised."""
    draw, run, corpus = random.Random(seed), guarded(target.run), list(target.seeds)

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"an input took longer than {HANG} s")

    signal.signal(signal.SIGPROF, late)  # processor time: machines of tests are busy
    for number in range(count):
        if number % 256 == 0 and time.monotonic() > deadline:
            return number
        data = bytearray(draw.choice(corpus))
        for _ in range(draw.randint(1, 8)):
            _mutate(data, target, corpus, draw)
        data = bytes(data[:LONGEST])
        signal.setitimer(signal.ITIMER_PROF, HANG)
        try:
            run(data)
        except BaseException:
            (keep / f"crash-{abs(hash(data)):x}").write_bytes(data)
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return count


def _mutate(data: bytearray, target: Target, corpus: list[bytes], draw: random.Random) -> None:
    """Change a few bytes in one of the ways in which files go wrong."""
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.choice((1, 1, 2, 4, 16, 64)))
    kind = draw.randrange(6)
    if kind == 0:
        data[at:end] = draw.randbytes(end - at)
    elif kind == 1:
        del data[at:end]
    elif kind == 2:
        data[at:at] = data[at:end] * draw.choice((1, 2, 50))
    elif kind == 3 and target.words:
        data[at : draw.choice((at, end))] = draw.choice(target.words)
    elif kind == 4:
        other = draw.choice(corpus)
        data[at:] = other[draw.randrange(len(other) + 1) :]
    else:
        # A number or word between delimiters becomes another: what stays well-formed reaches deepest.
        spans = [match.span() for match in re.finditer(rb'"[^"]*"|-?\d+(?:\.\d+)?|null|\[[^\[\]]*\]', bytes(data))]
        if spans and target.words:
            start, stop = draw.choice(spans)
            data[start:stop] = draw.choice(target.words)


def fuzz_one(name: str, count: int, engine: str, seed: int, seconds: float, keep: Path) -> None:
    """Fuzz one target in this process, which is started for it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        if engine == "atheris":
            import atheris  # pyright: ignore[reportMissingImports]

            with atheris.instrument_imports(include=["mllm"]):  # pyright: ignore[reportAttributeAccessIssue]
                target = targets(folder)[name]
            seeds = folder / "seeds"
            seeds.mkdir()
            for number, data in enumerate(target.seeds):
                (seeds / str(number)).write_bytes(data)
            words = folder / "words"
            words.write_text("".join(map(_quoted, target.words)))
            flags = [f"-runs={count}", f"-max_len={LONGEST}", f"-timeout={6 * HANG}", f"-seed={seed + 1}"]
            flags += [f"-dict={words}"] if target.words else []
            flags += [f"-artifact_prefix={keep}/", "-rss_limit_mb=2048", f"-max_total_time={int(seconds)}"]
            flags += ["-print_final_stats=1", "-verbosity=1"]
            atheris.Setup([sys.argv[0], *flags, str(seeds), str(keep)], guarded(target.run))
            atheris.Fuzz()
        done = mutated(targets(folder)[name], count, seed, time.monotonic() + seconds, keep)
        print(f"stat::number_of_executed_units: {done}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quoted(word: bytes) -> str:
    """Spell a word as libFuzzer's dictionaries do."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word[:60]) + '"\n'


def main() -> None:
    """Fuzz every target; one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in all, by the targets' shares")
    parser.add_argument("--seconds", type=float, default=1e6, help="the longest that one target may take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--only", default="", help="targets whose name begins so")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder of inputs that failed")
    parser.add_argument("--target", help="fuzz this one here (what the others are started with)")
    options = parser.parse_args()
    engine = options.engine if options.engine != "auto" else "atheris" if find_spec("atheris") else "random"
    if options.target:
        keep = options.keep / options.target
        fuzz_one(options.target, options.inputs, engine, options.seed, options.seconds, keep)
        return
    with tempfile.TemporaryDirectory() as folder:
        shares = {n: t.share for n, t in targets(Path(folder)).items() if n.startswith(options.only)}
    begun, fed, failed = time.monotonic(), 0, []
    for name, share in shares.items():
        keep = options.keep.resolve() / name
        keep.mkdir(parents=True, exist_ok=True)
        wanted = -(-options.inputs * share // sum(shares.values()))
        command = [sys.executable, __file__, "--target", name, "--inputs", str(wanted), "--engine", engine]
        command += [
            "--seed",
            str(options.seed),
            "--seconds",
            str(options.seconds),
            "--keep",
            str(options.keep.resolve()),
        ]
        started = time.monotonic()
        done = subprocess.run(command, text=True, errors="replace", capture_output=True, env=os.environ)
        output = done.stdout + done.stderr
        counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
        fed += int(counted[1]) if counted else 0
        took, bad = time.monotonic() - started, done.returncode != 0 or counted is None
        print(
            f"{name:<24} {counted[1] if counted else '?':>9} inputs  {took:6.1f} s  {'FAILED' if bad else 'ok'}",
            flush=True,
        )
        if bad:
            failed.append(name)
            print(output[-3000:], flush=True)
        elif not any(keep.iterdir()):
            keep.rmdir()
    minutes, verdict = (
        (time.monotonic() - begun) / 60,
        f"{len(failed)} FAILED: {', '.join(failed)}" if failed else "no crash, no hang",
    )
    print(f"fuzz: {fed:,} inputs to {len(shares)} parsers ({engine}), {minutes:.1f} minutes: {verdict}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
