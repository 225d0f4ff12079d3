"""CPU seconds of a piece of work, and the settings under which the benches measure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def use_one_thread() -> None:
    """Measure on one thread, with freed memory kept, and without logs and progress bars."""
    import torch
    import transformers

    from mllm.models.cpu_kernels import keep_memory

    torch.set_num_threads(1)
    keep_memory()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
