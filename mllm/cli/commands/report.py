"""Show benchmark runs side by side, on one page.

The page is one self-contained HTML file; the same is written as Markdown and JSON.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mllm.cli.options import named_folders
from mllm.cli.programs import Range


@dataclass(frozen=True)
class Options:
    runs: tuple[str, ...]
    """NAME=FOLDER of a benchmark run"""
    logs: tuple[str, ...] = ()
    """NAME=FOLDER of a training run, for the learning curves"""
    captions: tuple[str, ...] = ()
    """NAME=FOLDER of eval/captions.py that holds truematch.json"""
    out: Path = Path("report.html")
    """page to write"""
    title: str = ""
    """heading of the page"""
    gallery: Annotated[int, Range(0)] = 10
    """samples to show with images"""


def command(options: Options) -> None:
    from mllm.evaluation import report

    runs, logs, captions = (named_folders(pairs) for pairs in (options.runs, options.logs, options.captions))
    page = report.build(runs, logs=logs, captions=captions, title=options.title, gallery=options.gallery)
    file, text, _ = report.write(page, options.out)
    print(text.read_text(encoding="utf-8"))
    print(f"written: {file}")
