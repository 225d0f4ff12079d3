"""What is missing, torn or of another shape in a folder of weights, as one sentence instead of a traceback.

Libraries fill weights that a checkpoint lacks with random numbers and only log it; here that is an error.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from mllm.errors import FieldmarkError
from mllm.io import strict_json

AGAIN = "copy or download the folder again"
_LFS = b"version https://git-lfs"
_TEXTS = (
    "config.json", "generation_config.json", "adapter_config.json", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template.json", "chat_template.jinja", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json",
)  # fmt: skip


def check_texts(folder: Path) -> None:
    """Refuse Git LFS pointers and broken JSON among a folder's small files. Nothing is checked for a Hub name.

    Raises:
        FieldmarkError: names the file.
    """
    for path in filter(Path.is_file, (folder / name for name in _TEXTS)):
        _refuse_pointer(path)
        if path.suffix == ".json":
            try:
                json.loads(path.read_text(encoding="utf-8-sig"))
            except JSONDecodeError as error:
                raise FieldmarkError(f"{path}:{error.lineno}: broken JSON: {error.msg}; {AGAIN}") from None
            except UnicodeDecodeError:
                raise FieldmarkError(f"{path}:1: broken JSON: not UTF-8; {AGAIN}") from None


def check_tokenizer(folder: Path, advice: str = AGAIN) -> None:
    """Refuse a folder without a tokenizer, for which transformers would build an empty one."""
    names = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise FieldmarkError(f"{folder}: no tokenizer ({names[0]}) beside the weights; {advice}")


def check_weights(folder: Path, name: str = "model", *, needed: bool = True) -> None:
    """Refuse weights that are not there, or not whole: every file of safetensors has the length that it gives itself.

    `name` is that of the file without its ending. Without `needed` only files that are there are checked. Nothing is
    checked for a Hub name.

    Raises:
        FieldmarkError: names the file.
    """
    if not folder.is_dir():
        return
    single, index = folder / f"{name}.safetensors", folder / f"{name}.safetensors.index.json"
    files = [single]
    if index.is_file() and not single.is_file():
        weight_map = strict_json.read(index, _Index, advice=AGAIN).weight_map
        files = [folder / shard for shard in sorted(set(weight_map.values()))]
    for path in files:
        if path.is_file():
            _check_safetensors(path)
        elif needed and path == single:
            raise FieldmarkError(f"{folder}: no {path.name} found; pickled weights are not loaded")
        elif needed:
            raise FieldmarkError(f"{path}: no such file, but {index.name} names it; {AGAIN}")


class _Index(BaseModel):
    weight_map: dict[str, str] = Field(min_length=1)


def _check_safetensors(path: Path) -> None:
    _refuse_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 8 + length <= size else None
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]  # type: ignore
        except (ValueError, AttributeError, TypeError, KeyError, IndexError):
            raise FieldmarkError(f"{path}: truncated, or not a file of safetensors; {AGAIN}") from None
    if size != (whole := 8 + length + max(ends, default=0)):
        raise FieldmarkError(f"{path}: truncated: {size} bytes of {whole}; {AGAIN}")


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise FieldmarkError(f"{path}: looks like a Git LFS pointer, not the file itself: run `git lfs pull` there")


def check_loaded(name: str, info: Mapping[str, Any], config: str = "config.json") -> None:
    """Refuse weights that were not in the files, or have another shape there.

    Args:
        name: of the checkpoint or adapter.
        info: `output_loading_info` of transformers, or the fields of PEFT's loading result. Tied weights are not
            among its missing keys.
        config: the file that says which weights there are.

    Raises:
        FieldmarkError: how many, and the first of them.
    """
    missing, unexpected = sorted(info.get("missing_keys") or ()), sorted(info.get("unexpected_keys") or ())
    other = f"; {len(unexpected)} others are not of this model (first: {unexpected[0]})" if unexpected else ""
    if missing:
        raise FieldmarkError(
            f"{name}: {len(missing)} weights that {config} asks for are not in its files (first: {missing[0]})"
            f"{other}. Take the {config} that belongs to these weights, or {AGAIN}"
        )
    mismatched: list[Any] = sorted(info.get("mismatched_keys") or ())
    if mismatched:
        key, here, asked = mismatched[0]
        raise FieldmarkError(
            f"{name}: {len(mismatched)} weights have another shape than {config} asks for (first: {key}, "
            f"{list(here)} for {list(asked)}). Take the {config} that belongs to these weights"
        )


@contextmanager
def one_sentence(subject: str, advice: str = AGAIN) -> Iterator[None]:
    """Turn what libraries raise for files that they cannot use into an error of one line; their tables are not shown.

    Raises:
        FieldmarkError: begins with `subject`, ends with `advice`.
    """
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (FieldmarkError, MemoryError):
        raise
    except Exception as error:  # tokenizers and safetensors raise classes of their own, and plain `Exception`
        if "out of memory" in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(lines[:2]) or type(error).__name__  # the first line may be a heading
        if "trust_remote_code" in str(error) or "custom code" in said:
            said = "it needs code of its own, which Fieldmark does not run"
        raise FieldmarkError(f"{subject}: {said:.400}; {advice}") from error
    finally:
        logging.set_verbosity(shown)
