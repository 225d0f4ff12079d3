"""Training with TRL's trainers. Only this package and recipes/ import TRL."""

import logging
import os

# TRL sends telemetry unless this is set before its first import.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Logged at import, even in runs without 4-bit weights or DeepSpeed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
