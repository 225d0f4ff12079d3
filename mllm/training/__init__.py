"""What joins Fieldmark to TRL's trainers. Only this package and recipes/ know TRL."""

import os

# TRL reports each run to its makers unless told otherwise; it reads this when it is first imported, so it stands here.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
