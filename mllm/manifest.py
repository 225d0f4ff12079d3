"""The folder of a data set in the making: which settings it belongs to, what lies in it, and a hash of it all.

`settings.json` is written first, so that a run that goes on cannot mix two settings in one folder; `manifest.json` is
written last, so that whoever sees it knows that the data is whole. Neither holds a time or a machine's name: the same
settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm.errors import FieldmarkError
from mllm.records import atomic_write

SETTINGS, MANIFEST = "settings.json", "manifest.json"


def begin(out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> dict[str, Any] | None:
    """Claim the folder for these settings; return its manifest when the data is there already, whole.

    Raises:
        FieldmarkError: the folder holds data of other settings (names the first that differs), or strange files.
    """
    settings = json.loads(json.dumps(settings))  # as they will be read back: tuples become lists
    file = out / SETTINGS
    if overwrite and file.exists():
        shutil.rmtree(out)  # it holds what this program wrote: only a folder that it claimed has this file
    if file.exists():
        before = _read(file)
        for name in sorted(settings.keys() | before.keys()):
            if settings.get(name) != before.get(name):
                raise FieldmarkError(
                    f"{out} holds data made with {name} = {before.get(name)!r}, now it is {settings.get(name)!r};"
                    " choose another folder with --out, or throw the old data away with --overwrite"
                )
        return _read(out / MANIFEST) if (out / MANIFEST).exists() else None
    if out.exists() and any(out.iterdir()):
        raise FieldmarkError(f"{out} is not empty and was not made by this program; choose a new folder with --out")
    _write(file, settings)
    return None


def finish(out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Hash every file of the folder, write the manifest and return it."""
    hashes = {
        path.relative_to(out).as_posix(): digest(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    whole = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    listed = {name: value for name, value in hashes.items() if "/" not in name}  # of pictures only the sum is told
    manifest = {**facts, "settings": _read(out / SETTINGS), "files": listed, "hash": whole}
    _write(out / MANIFEST, manifest)
    return manifest


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise FieldmarkError(f"{file}:{error.lineno}: broken JSON; throw the folder away with --overwrite") from error


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(file) as out:
        json.dump(content, out, ensure_ascii=False, indent=1)
        out.write("\n")
