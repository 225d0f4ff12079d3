"""The kill test: runs killed with SIGKILL at random moments must end as a run that was left alone.

    python tests/recipes/killed.py --kills 25 --seed 0        # `make kill`

Five kinds: SFT; GRPO with answers that last for four steps, weighted advantages and mastery that is measured again;
GRPO that draws other prompts for groups without advantage; GRPO on bags of captions that grow (BagCurri); pretraining
of the pocket base. Every attempt is a process of its own that runs the recipe as a user does, forked from one that has
loaded torch and TRL already, so that a kill costs a start of the run and not of Python. Half of the moments are drawn
over the whole run, half fall into the writing of a checkpoint. Compared bit for bit: weights, best weights, the state
of the pretraining, every line of the log except times, mastery tables, the stages of the bags.
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
from pathlib import Path
from typing import Any

import yaml

from mllm.knowledge.mastery import MasteryTable
from mllm.records import load_samples
from tests.support.command_line import fork
from tests.support.scenes import make_captions, make_data

KINDS = ("sft", "rl", "resample", "bags", "pretrain")
TIMES = (
    "seconds", "eval/seconds", "mastery/seconds", "step_time",
    "train_runtime", "train_samples_per_second", "train_steps_per_second",
)  # fmt: skip
"""Fields of a log that may differ: how long things took."""
PRETRAIN = {
    "scenes": 40, "batch": 4, "text-batch": 4, "checks": 2, "threads": 1,
    "save-every": 2, "warmup-steps": 3, "steps": 5,
}  # fmt: skip
"""A pretraining of seconds: eight steps, a saved state after every second one."""


def recipes(folder: Path) -> dict[str, list[str]]:
    """Write data and a YAML for each kind; return its command: the recipe's name, then its flags but for the output."""
    train, validation = make_data(folder / "data", train=12, validation=3)
    captions = make_captions(folder / "captions", "train", families=3, size=3)
    names = {thing.entity for sample in load_samples(train) for thing in sample.things}
    table = MasteryTable.counted([(name, 0.5) for name in sorted(names)]).save(folder / "mastery.json")
    shared: dict[str, Any] = {"model": "pocket", "dtype": "float32", "style": "direct", "max_tokens_per_sample": 512}
    shared |= {"train": str(train), "threads": 1}
    trainer: dict[str, Any] = {
        "max_steps": 12, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 2, "save_steps": 2,
        "save_total_limit": 2, "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "warmup_steps": 3,
    }  # fmt: skip
    sft = {"validation": str(validation), "evaluate": {"samples": 3, "max_new_tokens": 20, "every": 4}}
    refresh = {"every": 4, "by": "marks", "per_entity": 1, "max_new_tokens": 6}
    rl = {
        "rewards": {"iou": {"mode": "raw"}, "format": {"style": "direct"}},
        "advantage": {"mastery": {"file": str(table), "refresh": refresh}},
    }
    bags = {
        "train": str(captions),
        "rewards": {"self_retrieval": {"over": "bag_batch"}, "length": {"weight": 0.1}},
        "bags": {"schedule": [[2, 2], [1, 3]], "saturation": 1.0},
    }
    resample = {
        "train": str(captions),
        "rewards": {"length": {"least": 5, "most": 5}},
        "dynamic_sampling": "resample",
        "resample_rounds": 2,
    }
    rl_steps = {"num_generations": 4, "max_completion_length": 24, "steps_per_generation": 2, "num_iterations": 2}
    resample_steps = {"num_generations": 2, "steps_per_generation": 2, "logging_steps": 1, "max_completion_length": 8}
    bag_steps = {"per_device_train_batch_size": 6, "num_generations": 2, "max_completion_length": 6, "logging_steps": 1}
    commands = {"pretrain": ["pretrain", *(f"--{name}={value}" for name, value in PRETRAIN.items())]}
    for kind, program, section, steps in (
        ("sft", "sft", sft, {}),
        ("rl", "rl", rl, rl_steps),
        ("resample", "rl", resample, resample_steps),
        ("bags", "rl", bags, bag_steps),
    ):
        config = folder / f"{kind}.yaml"
        config.write_text(yaml.safe_dump({"fieldmark": shared | section, **trainer, **steps}))
        commands[kind] = [program, "--config", str(config)]
    return {kind: commands[kind] for kind in KINDS}


def start(command: list[str], out: Path) -> int:
    """Fork a process that runs the recipe; return its number. Its output goes to OUT.log."""
    program, *flags = command
    words = [f"recipes/{program}.py", *flags, "--out" if program == "pretrain" else "--output_dir", str(out)]
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return fork(words, log)
    finally:
        os.close(log)


def saves(out: Path) -> int:
    """How many checkpoints there are, unfinished ones included."""
    return sum(len(list(out.glob(pattern))) for pattern in ("checkpoint-*", "best*", "state.*"))


def kill(child: int, out: Path, longest: float, draw: random.Random) -> bool:
    """Kill a run at a random moment; False if it ended before that."""
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
    patterns = ("*.safetensors", "best/*.safetensors", "mastery/*", "checkpoint-*/run_state_bags.json")
    for pattern in (*patterns, "state.pt", "weights/*.safetensors", "weights/scores.json"):
        found |= {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob(pattern))}
    score = out / "best" / "score.json"
    found["best"] = {k: v for k, v in json.loads(score.read_text()).items() if k not in TIMES} if score.exists() else {}
    for number, line in enumerate((out / "log.jsonl").read_text().splitlines()):
        found[f"log line {number}"] = {name: value for name, value in json.loads(line).items() if name not in TIMES}
    return found


class Trial:
    """One kind of run: what it ends in when left alone, and what it ends in after `wanted` kills."""

    def __init__(self, kind: str, command: list[str], folder: Path) -> None:
        self.kind, self.command, self.folder = kind, command, folder
        self.killed = self.runs = 0
        self.differences: list[str] = []
        started, whole = time.monotonic(), folder / f"{kind}-whole"
        finish(start(command, whole), whole)
        self.longest, self.expected = time.monotonic() - started, left(whole)
        assert len(self.expected) > 1, f"nothing to compare in {whole}"

    def disturb(self, wanted: int, draw: random.Random) -> None:
        """Kill runs until there were `wanted` kills; let each end with the same command, and compare."""
        while self.killed < wanted:
            out = self.folder / f"{self.kind}-{self.runs}"
            while self.killed < wanted:
                if not kill(start(self.command, out), out, self.longest, draw):
                    break
                self.killed += 1
            finish(start(self.command, out), out)
            self.runs += 1
            found = left(out)
            wrong = [name for name in sorted({*self.expected, *found}) if self.expected.get(name) != found.get(name)]
            self.differences += [f"{self.kind} run {self.runs}: {name}" for name in wrong]
            verdict = "as the run left alone" if not wrong else f"otherwise: {', '.join(wrong[:6])}"
            print(f"{self.kind}: {self.killed} kills, run {self.runs} ends {verdict}", flush=True)
            if not wrong:
                shutil.rmtree(out)


def main() -> None:
    """Kill, resume, compare; one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="in total, divided over the kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of runs; default: all of them")
    options = parser.parse_args()
    draw, begun = random.Random(options.seed), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fieldmark-kill-"))
    for program in ("sft", "rl", "pretrain"):
        importlib.import_module(f"recipes.{program}")
    commands, trials, kinds = recipes(folder), [], list(dict.fromkeys(options.kinds))
    for place, kind in enumerate(kinds):
        trials.append(Trial(kind, commands[kind], folder))
        trials[-1].disturb(options.kills // len(kinds) + (place < options.kills % len(kinds)), draw)
    different = [difference for trial in trials for difference in trial.differences]
    tally = ", ".join(f"{trial.kind} {trial.killed} in {trial.runs} runs" for trial in trials)
    minutes = (time.monotonic() - begun) / 60
    verdict = "all ended bit for bit as undisturbed runs" if not different else f"{len(different)} DIFFERENCES"
    print(f"kill: {sum(trial.killed for trial in trials)} kills ({tally}), {minutes:.1f} minutes: {verdict}")
    if different:
        sys.exit("\n".join([*different[:20], f"what was left is in {folder}"]))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
