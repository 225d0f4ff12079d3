"""Bags in the trainer: whole in a batch over all processes, with the rewards of one; stages survive a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mllm import rewards
from mllm.config import Bags, Settings
from mllm.data.bags import Bag
from mllm.errors import ConfigError, FieldmarkError
from mllm.io import codec
from mllm.io.jsonl import write_jsonl
from mllm.records import Completion, Sample, Score, load_samples
from mllm.training.checkpointing import RunState
from mllm.training.grpo import bag_curriculum
from mllm.training.grpo.bag_curriculum import BagStages
from mllm.training.grpo.bag_sampler import BagSampler, Schedule
from tests.support.scenes import make_captions


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_captions(tmp_path_factory.mktemp("captions"), "train", families=4, size=4)


@pytest.fixture(scope="module")
def samples(file: Path) -> list[Sample]:
    return load_samples(file)


def trl(**changes: int) -> Any:
    known = {"generation_batch_size": 12, "num_generations": 2, "num_iterations": 1, "steps_per_generation": 1}
    return SimpleNamespace(**known | {"seed": 0} | changes)


def test_smaller_bags_are_cut_out_of_the_rows_that_share_one(samples: list[Sample]) -> None:
    found = bag_curriculum.by_size(Bags(), samples, [2, 3])
    assert found[2][:3] == [(0, 1), (2, 3), (4, 5)] and len(found[2]) == 8
    assert found[3] == [(0, 1, 2), (4, 5, 6), (8, 9, 10), (12, 13, 14)], "the fourth of a family is in no bag of three"
    assert all(samples[bag[0]].bag == samples[bag[-1]].bag for made in found.values() for bag in made)


def test_bags_of_files_are_taken_as_they_are(samples: list[Sample], tmp_path: Path) -> None:
    mined = tmp_path / "bags.jsonl"
    write_jsonl(mined, [Bag("a", (samples[3].id, samples[7].id)), Bag("b", tuple(s.id for s in samples[:3]))])
    assert bag_curriculum.by_size(Bags(files=(mined,)), samples, [2, 3]) == {2: [(3, 7)], 3: [(0, 1, 2)]}
    write_jsonl(mined, [Bag("a", ("nobody", samples[7].id))])
    with pytest.raises(FieldmarkError, match="no sample 'nobody'"):
        bag_curriculum.by_size(Bags(files=(mined,)), samples, [2])
    assert Settings(bags=Bags(files=(mined,))).tables == (mined,), "another bag file is another run"


def test_the_sampler_counts_images_not_captions(samples: list[Sample]) -> None:
    made = bag_curriculum.sampler(
        Bags(schedule=((1, 2), (2, 4))), samples, trl(num_iterations=2, steps_per_generation=3)
    )
    assert (made.rows, made.batch, made.generations, made.repeats) == (16, 6, 2, 6)
    assert made.schedule == Schedule(((1, 2), (2, 4)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Bags(schedule=((1, 10),)), "bags of 10 do not fit into a generation batch of 6"),
        (Bags(schedule=((1, 5),)), "bags of 5 but there are none"),
        (Bags(schedule=((1, 1),)), "size >= 2"),
    ],
)
def test_schedules_that_the_data_cannot_follow_are_refused(samples: list[Sample], settings: Bags, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bag_curriculum.sampler(settings, samples, trl())


def test_rewards_and_bags_have_to_go_together() -> None:
    over_bags = {"self_retrieval": rewards.load("self_retrieval", over="bag_batch")}
    with pytest.raises(ConfigError, match="add a `bags` section"):
        bag_curriculum.check(Settings(), over_bags)
    bag_curriculum.check(Settings(bags=Bags()), over_bags)
    with pytest.raises(ConfigError, match="saturation"):
        bag_curriculum.check(Settings(bags=Bags(saturation=0.9)), {"length": rewards.load("length")})


def stages(resume_from: Path | None = None) -> tuple[BagStages, RunState]:
    pairs = [(0, 1), (2, 3), (4, 5), (6, 7)]
    sampler = BagSampler(8, {2: pairs, 4: [(0, 1, 2, 3)]}, Schedule(((3, 2), (9, 4)), saturation=0.5), 4, 1)
    run_state = RunState(resume_from)
    return BagStages(sampler, run_state), run_state


def earn(made: BagStages, sample: Sample, *hits: float | None) -> None:
    scores = [Score(0.0, {} if hit is None else {"hit": hit}) for hit in hits]
    made.add("self_retrieval", [replace(sample, bag="2/0")] * len(hits), (), scores)
    single, hit = [replace(sample, bag=None)], [Score(None, {"hit": 0.0})]
    made.add("self_retrieval", single, (), hit)  # a single image does not count
    made.add("clip", [replace(sample, bag="2/0")], (), hit)  # nor does another reward


def test_stages_end_when_retrieval_saturates_and_survive_a_stop(samples: list[Sample], tmp_path: Path) -> None:
    (made, run_state), args = stages(), SimpleNamespace(output_dir=str(tmp_path))

    def at(step: int, epoch: float) -> Any:
        return SimpleNamespace(global_step=step, epoch=epoch, is_world_process_zero=True)

    made.on_epoch_begin(args, at(0, 0.0), None)
    earn(made, samples[0], 0.0, 0.5, None)
    made.on_epoch_end(args, at(2, 1.0), None)
    assert made.sampler.hits == {0: 0.25}
    made.on_epoch_begin(args, at(2, 1.0), None)
    assert made.sampler.epoch == 1 and made.sampler.size == 2, "a quarter is less than half"
    earn(made, samples[0], 1.0)
    run_state.on_save(args, at(3, 1.5), None)  # in the middle of the epoch
    earn(made, samples[0], 0.0, 0.5)
    again, resumed = stages(tmp_path / "checkpoint-3")
    resumed.on_train_begin(args, at(3, 1.5), None)
    again.on_epoch_begin(args, at(3, 1.5), None)
    earn(again, samples[0], 0.0, 0.5)
    for one in (made, again):
        one.on_epoch_end(args, at(4, 2.0), None)
        one.on_epoch_begin(args, at(4, 2.0), None)
        assert one.counts == {0: (0.5, 2), 1: (1.5, 3)} and one.sampler.size == 4
    assert again.sampler.batches(2) == made.sampler.batches(2)
    with pytest.raises(FieldmarkError, match="made without `bags`"):
        stages(tmp_path)[1].on_train_begin(args, at(3, 1.5), None)
    assert json.loads((tmp_path / "checkpoint-3" / "run_state_bags.json").read_text())["size"] == 2


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_two_processes_keep_bags_whole_and_earn_what_one_would(
    pocket_folder: Path, file: Path, samples: list[Sample], tmp_path: Path, root: Path
) -> None:
    config = root / "accelerate_configs" / "cpu_two_processes.yaml"
    program = [str(root / "tests" / "training" / "bag_processes.py"), str(pocket_folder), str(file), str(tmp_path)]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *program]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    info = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert info[0]["counts"] == info[1]["counts"] and set(info[0]["counts"]) == {"0", "1"}
    reward = rewards.load("self_retrieval", over="bag_batch")
    across = 0
    batches = list(zip(info[0]["batches"], info[1]["batches"], strict=True))
    assert len(batches) == 4
    for number, parts in enumerate(batches):
        size = 2 if number < 2 else 3
        together = [*parts[0], *parts[1]]
        asked = [codec.decode(json.dumps(row["sample"]).encode(), Sample) for row in together]
        output = [codec.decode(json.dumps(row["said"]).encode(), Completion) for row in together]
        members: dict[str | None, set[str]] = defaultdict(set)
        for sample in asked:
            members[sample.bag].add(sample.id)
        assert all(len(ids) == size for bag, ids in members.items() if bag is not None)
        singles = members.pop(None, set())
        assert len(members) * size + len(singles) == 6 and len(members) == 6 // size
        here = {sample.bag for sample in asked[: len(parts[0])]}
        across += any(bag in here for bag in {sample.bag for sample in asked[len(parts[0]) :]} - {None})
        alone = [score.value for score in reward(asked, output)]
        assert alone == pytest.approx([row["earned"] for row in together], abs=1e-5, nan_ok=False)
    assert across, "no bag lay on both processes: the test shows nothing"
