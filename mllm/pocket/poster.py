"""A poster of the pocket world for documentation: every domain, three sister species each."""

from __future__ import annotations

from PIL import Image

from mllm.pocket.species import DOMAINS, species
from mllm.pocket.world import TILE, photo


def poster(scale: int = 1) -> Image.Image:
    """Draw ten columns of domains and three rows of sisters, enlarged by ``scale``."""
    sheet = Image.new("RGB", (TILE * len(DOMAINS), TILE * 3), "white")
    for column, domain in enumerate(DOMAINS):
        for row, one in enumerate(species(domain)[6:9]):
            sheet.paste(photo(one, seed=2)[0], (column * TILE, row * TILE))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.LANCZOS)
