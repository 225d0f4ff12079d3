"""Vectors on disk: computed once, keyed by content, complete after a kill, shared by processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mllm.errors import FieldmarkError, ImageError
from mllm.models.embedding_cache import EmbeddingStore, content_key


class Counting:
    """Embeds a file as its first byte, and counts its calls per file."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, files: list[Path]) -> np.ndarray:
        self.count += len(files)
        return np.array([[[file.read_bytes()[0], 1.0]] for file in files], np.float32)


def files(folder: Path, *contents: str) -> list[Path]:
    made = []
    for number, content in enumerate(contents):
        made.append(folder / f"{number}.png")
        made[-1].write_text(content)
    return made


@pytest.mark.parametrize("on_disk", [True, False])
def test_each_content_is_embedded_once(tmp_path: Path, on_disk: bool) -> None:
    store, embed = EmbeddingStore(tmp_path / "store" if on_disk else None, (1, 2)), Counting()
    paths = files(tmp_path, "a", "b", "a")
    first = store.vectors(paths, embed)
    assert first[:, 0, 0].tolist() == [ord("a"), ord("b"), ord("a")] and embed.count == 2
    assert (store.vectors(paths[::-1], embed) == first[::-1]).all() and embed.count == 2
    paths[0].write_text("cc")
    assert store.vectors(paths[:1], embed)[0, 0, 0] == ord("c") and embed.count == 3
    assert store.vectors([], embed).shape == (0, 1, 2)


def test_another_process_finds_them(tmp_path: Path) -> None:
    paths = files(tmp_path, "a", "b", "c")
    one, other = EmbeddingStore(tmp_path / "store", (1, 2)), EmbeddingStore(tmp_path / "store", (1, 2))
    one.vectors(paths[:2], Counting())
    embed = Counting()
    assert other.vectors(paths, embed)[:, 0, 0].tolist() == [97, 98, 99] and embed.count == 1
    again = Counting()
    assert len(EmbeddingStore(tmp_path / "store", (1, 2))) == 3
    assert one.vectors(paths, again)[2, 0, 0] == 99 and again.count == 0


def test_a_store_that_grows_reads_its_new_lines_alone(tmp_path: Path) -> None:
    """A million images come in four thousand steps: to read all keys at each of them would take hours."""
    paths = files(tmp_path, "a", "b", "c")
    store = EmbeddingStore(tmp_path / "store", (1, 2))
    store.vectors(paths[:1], Counting())
    keys = tmp_path / "store" / "keys.txt"
    keys.write_text("0" * 32 + "\n")  # would be met if the first line were read again
    embed = Counting()
    assert store.vectors(paths, embed)[:, 0, 0].tolist() == [97, 98, 99] and embed.count == 2
    assert len(store) == 3 and len(keys.read_text().splitlines()) == 3


@pytest.mark.parametrize("name", ["vectors.f32", "keys.txt"])
def test_what_a_kill_left_half_written_is_cut_off(tmp_path: Path, name: str) -> None:
    paths = files(tmp_path, "a", "b", "c")
    EmbeddingStore(tmp_path / "store", (1, 2)).vectors(paths[:1], Counting())
    with (tmp_path / "store" / name).open("ab") as file:
        file.write(b"x" * 5)
    store, embed = EmbeddingStore(tmp_path / "store", (1, 2)), Counting()
    assert store.vectors(paths, embed)[:, 0, 0].tolist() == [97, 98, 99] and embed.count == 2
    fresh = EmbeddingStore(tmp_path / "store", (1, 2))
    assert fresh.vectors(paths, Counting())[:, 0, 0].tolist() == [97, 98, 99] and len(fresh) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere.png"):
        content_key(tmp_path / "nowhere.png")


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0]])
def test_vectors_that_compare_with_nothing_are_refused(tmp_path: Path, bad: list[float]) -> None:
    one, two = files(tmp_path, "one", "two")
    store = EmbeddingStore(tmp_path / "store", (2,))
    with pytest.raises(FieldmarkError, match="1.png: its vector is not finite or all zeros, as the encoder gave it"):
        store.vectors([one, two], lambda wanted: np.array([[1.0, 2.0], bad])[: len(wanted)])
    assert len(store) == 0
    store.vectors([one, two], lambda wanted: np.ones((len(wanted), 2)))
    rows = np.fromfile(tmp_path / "store" / "vectors.f32", np.float32).reshape(-1, 2)
    rows[1] = bad
    rows.tofile(tmp_path / "store" / "vectors.f32")
    again = EmbeddingStore(tmp_path / "store", (2,))
    with pytest.raises(FieldmarkError, match=r"1.png: its vector is not finite .*store; delete this folder"):
        again.vectors([one, two], lambda wanted: np.ones((len(wanted), 2)))


@pytest.mark.parametrize("shape", [(4,), (1, 2), (1,)])
def test_vectors_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    EmbeddingStore(tmp_path / "store", (2,)).vectors(
        files(tmp_path, "a", "b"), lambda wanted: np.ones((len(wanted), 2))
    )
    with pytest.raises(FieldmarkError, match=r"shape.json: vectors of shape \[2\], but this model makes"):
        EmbeddingStore(tmp_path / "store", shape)
