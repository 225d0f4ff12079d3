"""What joins Fieldmark to TRL's trainers. Only this package and recipes/ know TRL."""

import logging
import os

# TRL reports each run to its makers unless told otherwise; it reads this when it is first imported, so it stands here.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Said at import, whether or not anybody asked for 4-bit weights or DeepSpeed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
