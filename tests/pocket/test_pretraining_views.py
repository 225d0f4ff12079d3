"""Tasks with a second image, small things and cards: one right answer each, drawn and collated as they say."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mllm.boxes import Frame
from mllm.pocket import pretraining_tasks, world
from mllm.pocket.model import MAX_PIXELS, build, build_image_processor
from mllm.pocket.pretraining import READABLE, VALUES, answer_loss, dense_truth, prompt_text, task_batch, visual_tokens
from mllm.pocket.pretraining_curriculum import IMAGE_SHARES, PAIRS_UNTIL, TEXT_SHARES, Curriculum
from mllm.pocket.pretraining_tasks import PretrainingTask
from mllm.pocket.scene_store import SceneStore, shrunk, training_scene, wide_scene
from mllm.pocket.species import find, species
from mllm.prompting.prompts import STYLES

NAMES = {one.name for one in species()}

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SceneStore:
    return SceneStore(tmp_path_factory.mktemp("scenes"), 48, workers=1)


@pytest.fixture(scope="module")
def drawn(store: SceneStore) -> list[PretrainingTask]:
    return Curriculum(store).images(PAIRS_UNTIL, 600, random.Random(0))


def _of(drawn: list[PretrainingTask], start: str) -> list[PretrainingTask]:
    found = [task for task in drawn if re.match(start, task.question)]
    assert len(found) >= 3, start
    return found


def test_wide_scenes_are_small_in_view_and_readable_in_the_crop(store: SceneStore) -> None:
    assert len(store.regular) == 48 and len(store.wide) == 6
    for place, number in enumerate(store.wide):
        scene, full = store.scene(number), wide_scene(place)
        assert [thing.look for thing in scene.things] == [thing.look for thing in full.things]
        assert np.array_equal(store.pixels_HWC(number), np.asarray(shrunk(full.image)))
        height, width, _ = store.pixels_HWC(number).shape
        assert (width, height) == (288, 192) and width * height <= MAX_PIXELS
        stock = build_image_processor().image_processor(full.image, return_tensors="np")
        assert stock["image_grid_thw"].tolist() == [[1, height // 16, width // 16]], "the model reads it at this size"
        for index, thing in enumerate(scene.things):
            x1, y1, x2, y2 = thing.box.to_xyxy(Frame(width, height))
            assert 15 <= max(x2 - x1, y2 - y1) <= 24 < READABLE
            ours = store.crop_HWC(number, index).astype(int)
            again = np.asarray(world.crop(full.image, thing.box, 1.55)).astype(int)
            assert ours.shape == (96, 96, 3) and np.abs(ours - again).mean() < 30


def test_a_crop_is_a_square_around_the_box_inside_the_image() -> None:
    image = Image.new("RGB", (300, 200), "white")
    image.paste("red", (100, 80, 140, 100))
    box = world.Box.from_xyxy((100, 80, 140, 100), Frame(300, 200))
    cut = np.asarray(world.crop(image, box, 2.0)).astype(int)
    red = (cut[:, :, 1] < 128).nonzero()
    assert (red[1].min(), red[1].max()) == (24, 71) and (red[0].min(), red[0].max()) == (36, 59)
    corner = world.Box.from_xyxy((0, 0, 40, 20), Frame(300, 200))
    image.paste("blue", (0, 0, 40, 20))
    assert np.asarray(world.crop(image, corner, 1.5))[0, 0].tolist() == [0, 0, 255], "moved inside, not padded"


def test_marks_of_small_things_are_not_taught_by_the_dense_head(store: SceneStore) -> None:
    numbers = [store.regular[0], store.wide[0]]
    truth = dense_truth([store.scene(n) for n in numbers], [store.pixels_HWC(n) for n in numbers])
    first = visual_tokens(store.pixels_HWC(numbers[0]))
    here = truth["present_V"] > 0
    assert (truth["marks_V4"][:first][here[:first]] >= 0).all()
    assert here[first:].any() and (truth["marks_V4"][first:] == -100).all()


def test_every_task_of_the_curriculum_is_drawn_at_its_share(drawn: list[PretrainingTask], store: SceneStore) -> None:
    assert sum(IMAGE_SHARES.values()) == pytest.approx(1) and sum(TEXT_SHARES.values()) == pytest.approx(1)
    two = sum(task.photo is not None for task in drawn) / len(drawn)
    assert two == pytest.approx(sum(IMAGE_SHARES[kind] for kind in ("crop", "match", "same", "either")), abs=0.04)
    texts = Curriculum(store).texts(400, random.Random(1))
    booked = sum(task.question.count(": ") > 0 and not task.question.startswith(("Tell", "1 ")) for task in texts)
    assert 0.02 < booked / 400 < 0.12


def test_small_things_are_spotted_and_read_from_crops(drawn: list[PretrainingTask], store: SceneStore) -> None:
    for task in _of(drawn, "Where is every"):
        assert task.photo is None and task.scene in store.wide
        boxes = [pretraining_tasks.write_box(thing.box) for thing in store.scene(task.scene).things]
        assert task.answer == " ".join(f"{place} {box}." for place, box in enumerate(boxes, 1))
    alone = _of(drawn, "What is in this image")
    assert all(task.scene is None and task.photo is not None for task in alone)
    for task in _of(drawn, r"What is at .*"):
        assert task.scene is not None
        (thing,) = [t for t in store.scene(task.scene).things if pretraining_tasks.write_box(t.box) in task.question]
        assert task.answer == f"{', '.join(thing.marks)}."
        assert (task.photo is not None) == (task.scene in store.wide), "small ones are read with their crop alone"


def test_two_images_are_matched_compared_and_told_apart(drawn: list[PretrainingTask], store: SceneStore) -> None:
    for task in _of(drawn, r"Find the \w+ of the second image"):
        assert task.photo is not None and task.scene is not None and task.target is not None
        box = store.scene(task.scene).things[task.target].box
        assert task.answer == f"<answer>{pretraining_tasks.write_box(box)}</answer>"
    verdicts = Counter()
    for task in _of(drawn, r"Is the \w+ the same in both"):
        mine, other = re.fullmatch(r"1 ([^.]*)\. 2 ([^.]*)\.", task.answer).groups()
        each = [mark.rpartition(" ") for mark in other.split(", ")[:-1]]
        assert [verdict for *_, verdict in each] == ["fits" if m in mine.split(", ") else "not" for m, *_ in each]
        same = all(verdict == "fits" for *_, verdict in each)
        assert other.endswith(", fits" if same else ", not") and task.sought == tuple(mine.split(", "))
        verdicts[same] += 1
    assert len(verdicts) == 2
    assert all("1 (" in task.answer for task in _of(drawn, r"List every \w+ in the first image"))


def test_cards_in_the_question_are_of_no_known_species_and_decide(
    drawn: list[PretrainingTask], store: SceneStore
) -> None:
    for task in _of(drawn, r"\w+ \w+: [^?]*\. Find"):
        *book, asked = re.split(r"(?<=\.) (?=\w+ \w+: |Find)", task.question)
        cards = dict(line.rstrip(".").split(": ") for line in book)
        assert not NAMES & set(cards)
        (name,) = [name for name in cards if f" {name}. " in asked]
        assert task.scene is not None and task.target is not None
        thing = store.scene(task.scene).things[task.target]
        assert cards[name] == ", ".join(thing.marks)
        assert task.answer.endswith(f"<answer>{pretraining_tasks.write_box(thing.box)}</answer>")
        assert task.question.endswith(STYLES["think"]) == bool(task.sought) == ("<think>" in task.answer)
    for number in range(40):
        text = pretraining_tasks.book_task(random.Random(number))
        assert text.answer in text.question and not any(name in text.question for name in NAMES)
    with pytest.raises(Exception, match="unknown pocket species"):
        find(pretraining_tasks.invented_names(1, random.Random(0))[0])


def test_prompts_of_two_images_equal_the_stock_processors(drawn: list[PretrainingTask], store: SceneStore) -> None:
    processor = build_image_processor()
    task = _of(drawn, "What is in the second")[0]
    assert task.scene is not None and task.photo is not None
    images = [store.pixels_HWC(task.scene), task.photo]
    content = [{"type": "text", "text": task.question}, {"type": "image"}, {"type": "image"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    stock = processor(text=[text], images=[Image.fromarray(image) for image in images], return_tensors="pt")
    ours = prompt_text(task.question, *map(visual_tokens, images))
    assert processor.tokenizer(ours).input_ids == stock["input_ids"][0].tolist()
    batch = task_batch([task], store, processor.tokenizer)
    assert torch.equal(batch["pixel_values"], stock["pixel_values"])
    assert torch.equal(batch["image_grid_thw"], stock["image_grid_thw"])


def test_targets_of_two_images_lie_in_the_first(drawn: list[PretrainingTask], store: SceneStore) -> None:
    tokenizer = build_image_processor().tokenizer
    task = _of(drawn, r"Find the \w+ of the second image")[0]
    batch = task_batch([task], store, tokenizer)
    assert task.scene is not None
    first = visual_tokens(store.pixels_HWC(task.scene))
    tokens = (batch["mm_token_type_ids"][0] == 1).nonzero().squeeze(1)
    targets = batch["on_target"][0][tokens]
    assert len(tokens) == first + 9 and targets[:first].max() == 1 and (targets[first:] == -1).all()


def test_the_mark_sought_is_a_target_where_one_is_judged() -> None:
    model, processor = build(1)
    scene = training_scene(3, "test", 3)
    task = pretraining_tasks.reason_task(scene, 3, random.Random(3), late=True)
    plain = PretrainingTask(task.question, task.answer, sought=task.sought, prefix=task.prefix)
    batch = task_batch([plain], None, processor.tokenizer)
    values = batch["pointers_K4"][:, 3]
    words = [mark.split()[0] for mark in task.sought]
    assert [VALUES[value] for value in values.tolist() if value >= 0] == words * 3
    assert torch.isfinite(answer_loss(model, batch))


def test_a_scene_store_is_drawn_once(store: SceneStore, tmp_path: Path) -> None:
    first = SceneStore(tmp_path, 8, workers=1)
    stamp = (tmp_path / "scenes_8.bin").stat().st_mtime_ns
    again = SceneStore(tmp_path, 8, workers=1)
    assert (tmp_path / "scenes_8.bin").stat().st_mtime_ns == stamp and len(again) == len(first) == 9
    assert np.array_equal(again.pixels_HWC(3), store.pixels_HWC(3)), "a scene depends on its number alone"
