"""Write benchmark runs as one table for a README or a paper.

All runs must be of the same samples. The table is sorted, best first, with intervals. Folders of eval/captions.py that
hold truematch.json give a table of R@1, marks and words.
"""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from mllm.cli.options import named_folders


@dataclass(frozen=True)
class Options:
    runs: Positional[tuple[str, ...]]
    """benchmark folders, or NAME=FOLDER"""
    kind: Annotated[str, arg(name="format")] = "markdown"
    """markdown, latex or json"""
    part: Annotated[str, arg(name="slice")] = "all"
    """slice to score: all, unseen entities, domain bird, ..."""


def command(options: Options) -> None:
    from mllm.evaluation.report import leaderboard

    print(leaderboard.write(named_folders(options.runs), options.part, options.kind))
