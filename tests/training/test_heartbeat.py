"""Processes that train together: who is lost is named, and two of them take the steps of one with twice the batch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from socket import socket

import pytest
import torch

from mllm.training import heartbeat
from tests.support.scenes import make_data
from tests.training.test_sharded import ROOT, recipe, trained


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_data(tmp_path_factory.mktemp("processes-data"), train=12, validation=2)


def free_port() -> int:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def watched(mode: str, silence: float, stall: float, folder: Path) -> tuple[str, int, float]:
    """Run tests/training/watched.py on two "machines", whose launchers do not see each other's processes."""
    port = free_port()
    program = [str(ROOT / "tests" / "training" / "watched.py"), mode, str(silence), str(stall)]
    started, nodes = time.monotonic(), []
    for node in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        command += ["--node_rank", str(node), "--master_addr", "127.0.0.1", "--master_port", str(port), *program]
        log = (folder / f"node{node}.log").open("w")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        nodes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    try:
        code = nodes[0].wait(timeout=240)
        took = time.monotonic() - started
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(timeout=60)
    return (folder / "node0.log").read_text(), code, took


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        pytest.param("stop", r"no heartbeat for .* s from rank 1 \(.*, process \d+\)", marks=pytest.mark.slow),
        pytest.param(
            "stuck",
            r"no progress for .*: 1 of 2 ranks wait .* for rank 1 \(.*, process \d+\) in watched.py:\d+ never_back",
            marks=pytest.mark.ci,
        ),
    ],
)
def test_a_lost_process_is_named(mode: str, message: str, tmp_path: Path) -> None:
    silence, stall = (4, 60) if mode == "stop" else (60, 4)
    output, code, took = watched(mode, silence, stall, tmp_path)
    assert code != 0 and took < 200, "the collective's own timeout is 300 s"
    assert re.search(message, output), output[-3000:]
    assert "Rank 0 of 2 ends the run" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("die", "error: rank 0 lost its connection to another process"),
        ("late", "error: rank 1 of 2 did not join within 5 s"),
        ("fine", "rank 0 is done"),
    ],
)
def test_other_ways_to_go(mode: str, message: str, tmp_path: Path) -> None:
    output, code, _ = watched(mode, 5 if mode == "late" else 30, 60, tmp_path)
    assert message in output, output[-3000:]
    assert (code == 0) == (mode == "fine")


def test_a_lost_connection_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert heartbeat.is_lost_connection(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert not heartbeat.is_lost_connection(RuntimeError("shape mismatch"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not heartbeat.is_lost_connection(RuntimeError("gloo"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kind", [pytest.param("sft", marks=pytest.mark.slow), pytest.param("replay", marks=pytest.mark.ci)]
)
def test_two_processes_take_the_steps_of_one_with_twice_the_batch(
    kind: str, data: tuple[Path, Path], tmp_path: Path
) -> None:
    """GRPO on replayed answers: live ones differ by process, since each draws its own random numbers."""
    info = {}
    for config, rows in (("cpu", 4), ("cpu_two_processes", 2)):
        folder = tmp_path / config
        folder.mkdir()
        path = recipe("rl" if kind == "replay" else "sft", data, folder)
        batch = rows * (2 if kind == "replay" else 1)
        flags = ["--per_device_train_batch_size", str(batch), "--validation", "null", "--save_strategy", "no"]
        info[config] = trained(kind, config, path, *flags, "--optim", "sgd", "--learning_rate", "0.1")
    one, two = info["cpu"], info["cpu_two_processes"]
    assert (one["world"], two["world"]) == (1, 2) and two["how"] == "MULTI_CPU"
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4) and min(one["grad_norm"]) > 1e-3
    torch.testing.assert_close(two["logits"], one["logits"], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("script", ["node.sh", "torchrun.sh"])
def test_two_nodes_on_loopback_train_one_model(script: str, data: tuple[Path, Path], tmp_path: Path) -> None:
    """The launch files as a person starts them, one launcher a node, each with one process."""
    path, port = recipe("sft", data, tmp_path), free_port()
    nodes = []
    for node in range(2):
        env = {**os.environ, "NODES": "2", "NODE": str(node), "ADDRESS": "127.0.0.1", "PORT": str(port)}
        env |= {"PROCESSES": "1", "CONFIG": str(ROOT / "accelerate_configs" / "cpu_zero2.yaml")}
        env |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        program = str(ROOT / "tests" / "training" / "sharded.py")
        command = [str(ROOT / "accelerate_configs" / "launch" / script), program, "sft", str(tmp_path / "told.pt")]
        log = (tmp_path / f"node{node}.log").open("w")
        command += ["--config", str(path), "--max_steps", "2", "--validation", "null"]
        nodes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT))
    codes = [node.wait(timeout=900) for node in nodes]
    assert codes == [0, 0], (tmp_path / "node0.log").read_text()[-3000:]
    info = torch.load(tmp_path / "told.pt", weights_only=True)
    assert info["world"] == 2 and info["how"] == ("DEEPSPEED" if script == "node.sh" else "MULTI_CPU")


def test_the_slurm_file_hands_every_node_its_number(tmp_path: Path) -> None:
    """With SLURM's commands replaced by ones that write down what they are asked, as no test machine has SLURM."""
    for name, text in {
        "scontrol": "echo node7; echo node8",
        "srun": 'shift; for n in 0 1; do SLURM_NODEID=$n "$@"; done',
        "python": 'echo "$@" >> "$TOLD"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TOLD": str(tmp_path / "told"), "PYTHON": "python"}
    env |= {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "node[7-8]"}
    script = str(ROOT / "accelerate_configs" / "launch" / "slurm.sh")
    subprocess.run([script, "recipes/sft.py", "--config", "a b"], env=env, cwd=ROOT, check=True, timeout=60)
    first, second = (tmp_path / "told").read_text().splitlines()
    assert "--num_machines 2 --machine_rank 0 --num_processes 8 --main_process_ip node7" in first
    assert "--machine_rank 1" in second and second.endswith("--main_process_port 20123 recipes/sft.py --config a b")
