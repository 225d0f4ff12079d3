"""Let this environment see another one's packages after its own: `.venv-web/bin/python .ci/overlay.py .venv`."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path


def main(folder: str) -> None:
    own = Path(sysconfig.get_path("purelib"))
    other = Path(folder).resolve() / own.relative_to(sys.prefix)
    if not other.is_dir():
        raise SystemExit(f"{other}: not found; run `make setup`")
    (own / "overlay.pth").write_text(f"import site; site.addsitedir({str(other)!r})\n")


if __name__ == "__main__":
    main(sys.argv[1])
