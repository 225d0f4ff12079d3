"""Push a synthesized data set to the Hub as parquet, with images and data card.

`datasets.load_dataset` opens it.
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Options:
    folder: Positional[Path]
    """output folder of data_synth/grounding.py or data_synth/captions.py"""
    repository: Positional[str]
    """OWNER/NAME on the Hub"""
    private: bool = False
    """make the repository private"""
    licence: str | None = None
    """the Hub's name of the licence; default: what the photos state"""
    out: Path | None = None
    """folder to pack it in; default: FOLDER-hub"""
    dry_run: bool = False
    """pack it without pushing"""


def command(options: Options) -> None:
    from mllm.data import hub

    packed = options.out or options.folder.with_name(f"{options.folder.name}-hub")
    files = hub.pack(options.folder, packed, licence=options.licence)
    print(f"{packed}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    if not options.dry_run:
        print(f"pushed: {hub.push(packed, options.repository, private=options.private)}")
