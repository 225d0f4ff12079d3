"""Turn pip's installation report into exact versions: `python .ci/constraints.py resolved.json "extras" > FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEADER = """\
# Exact versions that the tests ran with: {}.
# Written by `make constraints` for Python 3.11 on Linux; use it with `pip install -c FILE`.
# torch has no +cpu or +cu suffix: either build works.
"""


def main(report: str, extras: str) -> None:
    installs = json.loads(Path(report).read_text(encoding="utf-8"))["install"]
    versions = {item["metadata"]["name"]: item["metadata"]["version"].split("+")[0] for item in installs}
    lines = [f"{name}=={version}" for name, version in sorted(versions.items(), key=lambda pair: pair[0].lower())]
    sys.stdout.write(
        HEADER.format(extras) + "".join(f"{line}\n" for line in lines if not line.startswith("fieldmark=="))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
