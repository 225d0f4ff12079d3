"""Provenance of results: package versions, git commit, hashes of weights and data files."""

import hashlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("fieldmark", "torch", "transformers", "trl", "peft", "accelerate", "numpy", "pillow")
SETTINGS = ("adapter_config.json", "fieldmark.json", "config.json")
_EDGE = 1 << 20


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can change results."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit(folder: str | Path | None = None) -> str | None:
    """Return the commit of the code in `folder` (default: this package), with `+changes` if files differ from it.

    None if the folder is not in a git checkout (an installed wheel) or git is not installed.
    """
    where = Path(folder) if folder else Path(__file__).parent
    try:
        commit, changed = (
            subprocess.check_output(["git", "-C", where, *command], stderr=subprocess.DEVNULL, text=True, timeout=20)
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("+changes" if changed else "")


def fingerprint(folder: str | Path) -> str:
    """Hash a checkpoint: names, sizes and both ends of its weight files, its adapter config and its convention.

    Reading only both ends is fast for large weights, and a training step changes every tensor. For a checkpoint on the
    Hub the name is hashed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin") or path.name in SETTINGS:
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(_EDGE))
                file.seek(max(size - _EDGE, 0))
                digest.update(file.read(_EDGE))
    return digest.hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
