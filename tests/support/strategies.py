"""What hypothesis draws for the tests of boxes, answers and families."""

from __future__ import annotations

from hypothesis import strategies as st

from mllm.boxes import Box, Frame

SHARE = st.floats(0, 1, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn, least: float = 1e-6) -> Box:
    """Any box at least `least` wide and high, edges of the frame included."""
    x1, y1 = draw(st.floats(0, 1 - least)), draw(st.floats(0, 1 - least))
    x2 = draw(st.floats(min(x1 + least, 1), 1))
    y2 = draw(st.floats(min(y1 + least, 1), 1))
    return Box(x1, y1, max(x2, x1 + least / 2), max(y2, y1 + least / 2))


FRAMES = st.builds(Frame, st.floats(0.5, 1e5), st.floats(0.5, 1e5))
