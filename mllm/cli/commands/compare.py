"""Compare several runs with the first one, on one page.

Shows scores, paired differences, learning curves, domains, and images on which the runs disagree.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from mllm.cli.options import named_folders
from mllm.cli.programs import Range
from mllm.errors import FieldmarkError


@dataclass(frozen=True)
class Options:
    runs: Positional[tuple[str, ...]]
    """folders of benchmark answers, captions or trainings; NAME=FOLDER gives a name"""
    logs: tuple[str, ...] = ()
    """NAME=FOLDER of the training of a run, under the name of the run"""
    out: Path = Path("compare.html")
    """page to write"""
    title: str = ""
    """heading of the page"""
    gallery: Annotated[int, Range(0)] = 24
    """images to show on which the runs disagree"""


def command(options: Options) -> None:
    from mllm.evaluation import report
    from mllm.evaluation.report import caption_bags

    folders = named_folders(options.runs)
    if len(folders) < 2:
        raise FieldmarkError("a comparison needs two runs: fieldmark compare SFT=runs/pocket/eval/sft RL=...")
    answered = {name for name, folder in folders.items() if Path(folder, "outputs.jsonl").is_file()}
    logged = {name: folder for name, folder in folders.items() if Path(folder, "log.jsonl").is_file()}
    trainings = {name: folder for name, folder in logged.items() if name not in answered}
    captions = {name: folder for name, folder in folders.items() if caption_bags.has_scores(folder)}
    benchmarks = {name: folder for name, folder in folders.items() if name not in trainings | captions}
    page = report.build(
        benchmarks,
        logs=trainings | named_folders(options.logs),
        captions=captions,
        title=options.title or f"{', '.join(list(folders)[1:])} against {next(iter(folders))}",
        gallery=options.gallery,
        against_first=True,
    )
    file, text, _ = report.write(page, options.out)
    print(text.read_text(encoding="utf-8"))
    print(f"written: {file}")
