"""Options that several programs share, each written once. Nest them: their flags have no prefix."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from mllm.cli.programs import Range
from mllm.errors import FieldmarkError

DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelOptions:
    """How the weights of a model are read."""

    family: str | None = None
    """model family, if neither fieldmark.json beside the weights nor the server names it"""
    device: str = "auto"
    """auto, cpu or cuda"""
    dtype: DType = "float32"
    """number format of the weights"""
    quantize: Literal["4bit"] | None = None
    """4bit holds the base in NF4, as QLoRA trained it (with --dtype bfloat16)"""


@dataclass(frozen=True)
class GenerationOptions:
    """How answers are written."""

    max_new_tokens: Annotated[int, Range(1)] = 1024
    """longest answer, reasoning included, in tokens"""
    batch_size: Annotated[int, Range(1)] = 32
    """samples answered at once"""
    temperature: Annotated[float, Range(0)] = 0.0
    """sampling temperature; 0 is greedy"""
    top_p: Annotated[float, Range(0, 1)] = 1.0
    """share of the probability mass to sample from"""
    seed: int = 0
    """random seed of the sampling, and of what is drawn"""


@dataclass(frozen=True)
class BenchmarkOptions(GenerationOptions, ModelOptions):
    """The model that a benchmark asks, how it answers, and where the answers go."""

    RENAMED: ClassVar = {"--fresh": "--overwrite"}

    out: Path = Path("runs/eval")
    """folder of answers and scores"""
    model: str = "pocket"
    """checkpoint folder, adapter folder, Hub name, or pocket"""
    adapter: Path | None = None
    """adapter folder to put on --model, unmerged"""
    style: str | None = None
    """prompt style; default: the one saved beside the weights"""
    engine: Literal["transformers", "vllm"] = "transformers"
    """vllm if it is installed"""
    limit: Annotated[int | None, Range(1)] = None
    """only the first N samples"""
    rescore: bool = False
    """score the saved answers again, without the model"""
    overwrite: bool = False
    """discard the saved answers and ask again"""


@dataclass(frozen=True)
class TeacherOptions:
    """The teacher of a data program, and its settings."""

    teacher: str | None = None
    """teacher that writes; default: pocket for pocket images, else cards"""
    teacher_config: Path | None = None
    """YAML file with the teacher's settings"""
    teacher_option: tuple[str, ...] = ()
    """KEY=VALUE that wins over the file (may be repeated)"""

    def settings(self) -> dict[str, Any]:
        """Return the teacher's settings. Raises ConfigError: the file or an option cannot be read."""
        from mllm.synthesis import teachers

        return teachers.read_config(self.teacher_config, self.teacher_option)


@dataclass(frozen=True)
class FolderOptions:
    """The folder that a data program writes; none of these changes the data."""

    out: Path | None = None
    """output folder"""
    workers: Annotated[int, Range(1)] = 2
    """threads"""
    overwrite: bool = False
    """overwrite the output folder"""


@dataclass(frozen=True)
class CaptionsOptions:
    """The captions that a benchmark scores, and where its scores go."""

    captions: Path
    """JSON file {image: caption}, or the completions (jsonl) of eval/captions.py"""
    out: Path | None = None
    """write the scores to this JSON file"""


@dataclass(frozen=True)
class JudgeOptions:
    """The encoder that judges captions; it must not be the one that they were rewarded with."""

    scorer: str = "pocket-judge"
    """judge: pocket-judge, a folder or a Hub name"""
    cache: str | None = None
    """folder that keeps the images' vectors"""
    device: str | None = None
    """cpu or cuda; default: a GPU if there is one"""


def named_columns(pairs: Iterable[str]) -> dict[str, str]:
    """Read OURS=THEIRS pairs: our name of a column, and the input's."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, theirs = pair.partition("=")
        if not name or not theirs or name in found:
            raise FieldmarkError(f"--column {pair}: OURS=THEIRS is needed, each once: --column entity=scientificName")
        found[name] = theirs
    return found


def named_folders(pairs: Iterable[str]) -> dict[str, str]:
    """Read NAME=FOLDER pairs; a bare folder gets its own name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        name, folder = (name, folder) if equals else (Path(pair).name, pair)
        if not name or not folder:
            raise FieldmarkError(f"{pair!r}: NAME=FOLDER is needed, for instance SFT=runs/pocket/eval/sft")
        if name in found:
            raise FieldmarkError(f"two folders are called {name!r}: give them different names")
        found[name] = folder
    return found
