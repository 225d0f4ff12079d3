"""Look-alikes: by cards, by images, by both; differential marks read off two cards."""

from __future__ import annotations

import json
from pathlib import Path

import imagehash
import numpy as np
import pytest

from mllm.boxes import Box, Frame
from mllm.knowledge import confusables
from mllm.knowledge.card_files import Card, KnowledgeError, Mark
from mllm.pocket import world
from mllm.pocket.species import species
from mllm.records import Photo
from tests.support.photos import one_kind


def card(name: str, *marks: tuple[str, str], domain: str = "bird") -> Card:
    return Card(name, domain, tuple(Mark(text, part) for text, part in marks))


A = card("a", ("red bill", "bill"), ("long tail", "tail"), ("loud", ""))
B = card("b", ("black bill", "bill"), ("long tail", "tail"))
C = card("c", ("blue feet", "foot"))


def photo(folder: Path, number: int, entity: str) -> Photo:
    img, box = world.photo(species("bird")[number % 3], number)
    img.save(folder / f"{number}.png")
    return one_kind(str(number), f"{number}.png", Frame(96, 96), "bird", entity, (box,))


def test_differences_face_the_mark_of_the_same_part() -> None:
    assert confusables.differences(A, B) == (("red bill", "black bill"), ("loud", ""))
    assert confusables.differences(B, A) == (("black bill", "red bill"),)
    assert confusables.differences(A, A) == ()


def test_pairs_by_words_alone_are_the_nearest_of_the_domain() -> None:
    other = card("d", ("red bill", "bill"), domain="dog")
    (pair,) = confusables.pairs([A, B, C, other], {}, alike=1)
    assert (pair.entity, pair.other, pair.image) == ("a", "b", None)
    assert pair.text == round(3 / 6, 4) == pair.nearness  # bill, long, tail of red bill long tail loud black


def test_images_count_as_much_as_words() -> None:
    seen = {("bird", "a"): np.array([1.0, 0]), ("bird", "b"): np.array([0, 1.0]), ("bird", "c"): np.array([1.0, 0])}
    found = {(p.entity, p.other): (p.image, p.nearness) for p in confusables.pairs([A, B, C], seen, alike=2)}
    assert found == {("a", "b"): (0.5, 0.5), ("a", "c"): (1.0, 0.5), ("b", "c"): (0.5, 0.25)}


def test_the_hash_vector_gives_the_hamming_distance(tmp_path: Path) -> None:
    a, b = photo(tmp_path, 0, "a"), photo(tmp_path, 1, "b")
    vector = confusables.by_hash(tmp_path)
    cosine = float(vector(a, a.things[0]) @ vector(b, b.things[0])) / 64

    def code(one: Photo) -> imagehash.ImageHash:
        from PIL import Image

        corners = [round(x) for x in one.boxes[0].to_xyxy(one.size)]
        return imagehash.phash(Image.open(tmp_path / one.image).convert("RGB").crop(tuple(corners)))

    assert cosine == 1 - 2 * (code(a) - code(b)) / 64


def test_looks_are_the_mean_of_unit_vectors() -> None:
    rows = [one_kind(n, "x", Frame(9, 9), "bird", "a", (Box(0, 0, 1, 1),)) for n in "pq"]
    vectors = {"p": np.array([3.0, 0]), "q": np.array([0, 0.1])}
    looks = confusables.looks(rows, lambda one, thing: vectors[one.id])
    assert np.allclose(looks["bird", "a"], [0.5**0.5, 0.5**0.5])


def test_embeddings_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text(json.dumps({"id": "p", "vector": [1, 2]}) + "\n")
    vector = confusables.by_file(file)
    one = one_kind("p", "x", Frame(9, 9), "bird", "a", ())
    assert vector(one, one.things[0]).tolist() == [1, 2]
    with pytest.raises(KnowledgeError, match="no vector for photo 'q'"):
        vector(one_kind("q", "x", Frame(9, 9), "bird", "a", ()), one.things[0])
    for text in (
        "{}",
        "[]",
        '{"id": "p", "vector": [0, 0]}',
        '{"id": "p", "vector": ["x"]}',
        '{"id": "p", "vector": 3}',
    ):
        file.write_text(f'{{"id": "o", "vector": [1]}}\n{text}\n')
        with pytest.raises(KnowledgeError, match=r"e.jsonl:2: "):
            confusables.by_file(file)
    with pytest.raises(KnowledgeError, match="no such file"):
        confusables.by_file(tmp_path / "none.jsonl")
