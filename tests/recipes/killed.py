"""The kill test: runs killed with SIGKILL at random moments, and what they end in against a run that was left alone.

    python tests/recipes/killed.py --kills 24 --seed 0        # `make kill`

Four kinds: SFT; GRPO with answers that last for four steps, weights on the advantage and mastery asked anew; GRPO that
draws other prompts for groups without advantage; GRPO on bags of captions that grow (BagCurri). Every attempt is a
process of its own that runs the recipe as it is, forked from one that has torch and TRL loaded already, so that a kill
costs a start of the run and not of Python. Half of the moments are drawn over the whole run, half fall into the writing
of a checkpoint. Compared bit for bit: weights, best weights, every line of the log but times, mastery tables, the
stages of the bags.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from mllm.knowledge.mastery import MasteryTable
from mllm.records import load_samples
from tests.support.scenes import make_captions, make_data

KINDS = ("sft", "rl", "resample", "bags")
TIMES = (
    "seconds", "eval/seconds", "mastery/seconds", "step_time",
    "train_runtime", "train_samples_per_second", "train_steps_per_second",
)  # fmt: skip
"""What may differ in a log: how long things took."""


def recipes(folder: Path) -> dict[str, tuple[str, Path]]:
    """Write data and a YAML for each kind; return its program and file."""
    train, validation = make_data(folder / "data", train=12, validation=3)
    names = {thing.entity for sample in load_samples(train) for thing in sample.things}
    table = MasteryTable.counted([(name, 0.5) for name in sorted(names)]).save(folder / "mastery.json")
    ours: dict[str, Any] = {"model": "pocket", "dtype": "float32", "style": "direct", "max_tokens_per_sample": 512}
    ours |= {"train": str(train), "threads": 1}
    theirs: dict[str, Any] = {
        "max_steps": 12, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 2, "save_steps": 2,
        "save_total_limit": 2, "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "warmup_steps": 3,
    }  # fmt: skip
    sft = ours | {"validation": str(validation), "evaluate": {"samples": 3, "max_new_tokens": 20, "every": 4}}
    rl = ours | {
        "rewards": {"iou": {"mode": "raw"}, "format": {"style": "direct"}},
        "advantage": {"difficulty": "univg", "mastery": {"file": str(table), "refresh": {
            "every": 4, "by": "marks", "per_entity": 1, "max_new_tokens": 6,
        }}},
    }  # fmt: skip
    drawn = {"num_generations": 4, "max_completion_length": 24, "steps_per_generation": 2, "num_iterations": 2}
    captions = make_captions(folder / "captions", "train", families=3, size=3)
    bags = ours | {
        "train": str(captions),
        "rewards": {"self_retrieval": {"over": "bag_batch"}, "length": {"weight": 0.1}},
        "bags": {"schedule": [[2, 2], [1, 3]], "saturation": 1.0},
    }
    resample = ours | {
        "train": str(captions),
        "rewards": {"length": {"least": 5, "most": 5}},
        "dynamic_sampling": "resample",
        "resample_rounds": 2,
    }
    some = {"per_device_train_batch_size": 4, "num_generations": 2, "steps_per_generation": 2, "logging_steps": 1}
    few = {"per_device_train_batch_size": 6, "num_generations": 2, "max_completion_length": 6, "logging_steps": 1}
    made = {
        "sft": ("sft", sft, theirs),
        "rl": ("rl", rl, theirs | drawn),
        "resample": ("rl", resample, theirs | some | {"max_completion_length": 8}),
        "bags": ("rl", bags, theirs | few),
    }
    for name, (_, section, values) in made.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"fieldmark": section, **values}))
    return {name: (program, folder / f"{name}.yaml") for name, (program, _, _) in made.items()}


def start(program: str, config: Path, out: Path) -> int:
    """Fork a process that runs the recipe; return its number. Its words go to OUT.log."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        importlib.import_module(f"recipes.{program}").main(["--config", str(config), "--output_dir", str(out)])
        code = 0
    except BaseException:  # whatever it is belongs into the log, and must not run on as a second parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def saves(out: Path) -> int:
    """How many checkpoints there are, begun ones included."""
    return len(list(out.glob("checkpoint-*"))) + len(list(out.glob("best*")))


def kill(child: int, out: Path, longest: float, draw: random.Random) -> bool:
    """Kill a run at a random moment; False where it came to its end before that."""
    into_a_save = draw.random() < 0.5
    moment, begun, before = draw.uniform(0, longest), time.monotonic(), saves(out)
    delay = draw.uniform(0, 0.2)
    while True:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        if time.monotonic() - begun > moment or (into_a_save and saves(out) != before):
            if into_a_save:
                time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.005)


def finish(child: int, out: Path) -> None:
    """Wait for a run's own end."""
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"the run ended with {status}\n{out.with_suffix('.log').read_text()[-4000:]}")


def left(out: Path) -> dict[str, Any]:
    """What a run left that may not depend on where it was stopped: bytes of weights and tables, lines of the log."""
    found: dict[str, Any] = {}
    for pattern in ("*.safetensors", "best/*.safetensors", "mastery/*", "checkpoint-*/bag_state.json"):
        found |= {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob(pattern))}
    score = out / "best" / "score.json"
    found["best"] = {k: v for k, v in json.loads(score.read_text()).items() if k not in TIMES} if score.exists() else {}
    for number, line in enumerate((out / "log.jsonl").read_text().splitlines()):
        found[f"log line {number}"] = {name: value for name, value in json.loads(line).items() if name not in TIMES}
    return found


def main() -> None:
    """Kill, go on, compare; one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="in all, shared out over the kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    draw, begun = random.Random(options.seed), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fieldmark-kill-"))
    for program in ("recipes.sft", "recipes.rl"):
        importlib.import_module(program)
    killed: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    different: list[str] = []
    for place, (kind, (program, config)) in enumerate(recipes(folder).items()):
        started, whole = time.monotonic(), folder / f"{kind}-whole"
        finish(start(program, config, whole), whole)
        longest, expected = time.monotonic() - started, left(whole)
        wanted = options.kills // len(KINDS) + (place < options.kills % len(KINDS))
        while killed[kind] < wanted:
            out = folder / f"{kind}-{runs[kind]}"
            while killed[kind] < wanted:
                if not kill(start(program, config, out), out, longest, draw):
                    break
                killed[kind] += 1
            finish(start(program, config, out), out)  # the same command once more, to the end
            runs[kind] += 1
            found = left(out)
            wrong = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
            different += [f"{kind} run {runs[kind]}: {name}" for name in wrong]
            told = "as the run left alone" if not wrong else f"other: {', '.join(wrong[:6])}"
            print(f"{kind}: {killed[kind]} kills, run {runs[kind]} ends {told}", flush=True)
            if not wrong:
                shutil.rmtree(out)
    tally = ", ".join(f"{kind} {killed[kind]} in {runs[kind]} runs" for kind in KINDS)
    minutes = (time.monotonic() - begun) / 60
    verdict = "all ended bit for bit as undisturbed runs" if not different else f"{len(different)} DIFFERENCES"
    print(f"kill: {sum(killed.values())} kills ({tally}), {minutes:.1f} minutes: {verdict}")
    if different:
        sys.exit("\n".join([*different[:20], f"what was left is in {folder}"]))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
