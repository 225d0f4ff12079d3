"""Two processes with heartbeats: `torchrun watched.py MODE SILENCE STALL`, and rank 1 does what MODE says.

`die`: it is killed. `stop`: it is stopped, as a machine that freezes. `stuck`: it lives and never comes to the
collective call. `late`: it never starts. `fine`: nothing happens.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta

import torch

from mllm.distributed import World
from mllm.training import heartbeat, run


def never_back() -> None:
    """What a hung file system looks like from Python."""
    while True:
        time.sleep(0.1)


def main() -> None:
    mode, silence, stall = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    rank = World.current().rank
    if mode == "late" and rank == 1:
        never_back()
    heartbeat._current = beat = heartbeat.Heartbeat(World.current(), silence, every=0.3)
    beat.stall = stall
    beat.roll_call(silence if mode == "late" else 120)
    beat.start()
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=300))
    for step in range(4):
        if rank == 1 and step == 2 and mode != "fine":
            if mode == "stuck":
                never_back()
            os.kill(os.getpid(), signal.SIGKILL if mode == "die" else signal.SIGSTOP)
        torch.distributed.all_reduce(torch.ones(1))
    print(f"rank {rank} is done", flush=True)


if __name__ == "__main__":
    run.program(main)
