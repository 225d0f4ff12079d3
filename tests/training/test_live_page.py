"""The live page: what it shows of a batch, that it cannot stop a run; and TensorBoard's images."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mllm.boxes import Box, Frame
from mllm.evaluation.report import live as page
from mllm.io.jsonl import write_jsonl
from mllm.models import families
from mllm.prompting import answers
from mllm.records import Completion, Sample, Score
from mllm.training import live_page
from mllm.training.dataset import Data
from tests.support.encoders import paint

EVIL = "<img src=x onerror=alert(1)>"
FAMILY = families.load("pocket")


@pytest.fixture
def batch(tmp_path: Path) -> tuple[list[Sample], list[Completion]]:
    """Four prompts, two answers to each; the first answers right, the second with a text that wants to be markup."""
    samples, done = [], []
    for number, img in enumerate(paint(tmp_path, "red", "blue", "green", "white")):
        sample = Sample(
            f"s{number}", "ground", str(img), Frame(96, 96), "bird", "Tala rovi", f"Find {EVIL}.",
            (Box(0.25, 0.25, 0.75, 0.75),),
        )  # fmt: skip
        frame = FAMILY.frame(sample.size, FAMILY.budget)
        for text in ("<answer>(25,25),(75,75)</answer>", EVIL):
            samples.append(sample)
            done.append(Completion(sample.id, text, answers.parse(text, FAMILY, frame)))
    return samples, done


def added(batch: tuple[list[Sample], list[Completion]]) -> live_page.Rollouts:
    rollouts = live_page.Rollouts({one.id: Path(one.image) for one in batch[0]})
    rollouts.add("format", batch[0], batch[1], [Score(float(k % 2 == 0)) for k in range(8)])
    rollouts.add("iou", batch[0], batch[1], [Score(1.0), Score(None)] * 4)
    return rollouts


def test_the_first_prompts_of_the_last_batch_with_every_reward(batch) -> None:
    rollouts = added(batch)
    assert [group.sample.id for group in rollouts.groups] == ["s0", "s1", "s2"]
    assert [len(group.answers) for group in rollouts.groups] == [2, 2, 2]
    assert rollouts.groups[1].values == {"format": [1.0, 0.0], "iou": [1.0, None]}
    rollouts.add("format", batch[0], batch[1], [Score(0.5)] * 8)
    assert rollouts.groups[0].values == {"format": [0.5, 0.5]}, "a reward that is added again begins the next batch"
    samples, done = batch
    rollouts.add("iou", samples[2:], [replace(one, text="new") for one in done[2:]], [Score(0.0)] * 6)
    assert [group.sample.id for group in rollouts.groups] == ["s1", "s2", "s3"]
    assert rollouts.groups[0].values == {"iou": [0.0, 0.0]}


def callback(out: Path, rollouts: live_page.Rollouts, writer: Any = None) -> live_page.LivePage:
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[SimpleNamespace(tb_writer=writer)]))
    return live_page.LivePage(trainer, out, rollouts, SimpleNamespace(messages={"truncated": f"Too long {EVIL}"}))


def state(step: int, steps: int = 10, *, first: bool = True) -> Any:
    return SimpleNamespace(global_step=step, max_steps=steps, is_world_process_zero=first)


def test_the_page_while_it_trains_and_afterwards(batch, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    rows = [{"step": k, "seconds": k, "reward": 0.1 * k} for k in range(1, 6)]
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    watch = callback(out, added(batch))
    watch.on_train_begin(None, state(0), None)
    watch.on_log(None, state(5), None)
    text = (out / live_page.PAGE).read_text()
    assert 'http-equiv="refresh"' in text and "Step 5 of 10" in text and "reward 0.5" in text and "left" in text
    assert EVIL not in text and "<script" not in text and text.count("data:image/") == 3
    assert "Too long" in text and "–" in text and "<svg" in text
    (out / live_page.PAGE).unlink()
    watch.on_log(None, state(6), None)
    assert not (out / live_page.PAGE).exists(), "pages are not drawn at every step"
    watch.on_train_end(None, state(10), None)
    text = (out / live_page.PAGE).read_text()
    assert 'http-equiv="refresh"' not in text and "ended" in text
    watch.on_train_end(None, state(7), None)
    text = (out / live_page.PAGE).read_text()
    assert 'http-equiv="refresh"' not in text and "stopped; the same command continues" in text


class Full:
    """A tracker's writer whose disk is full."""

    def __init__(self) -> None:
        self.asked = 0

    def add_image(self, *_: Any, **__: Any) -> None:
        self.asked += 1
        raise OSError(28, "No space left on device")


def test_a_tracker_that_fails_stops_no_training(batch, tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(live_page, "EVERY_S", 0.0)
    writer = Full()
    watch = callback(tmp_path, added(batch), writer)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            watch.on_log(None, state(step), None)
    assert writer.asked == 1 and caplog.text.count("No space left on device") == 1
    assert "Step 2 of 10" in (tmp_path / live_page.PAGE).read_text(), "the page goes on"


def test_only_the_first_process_draws(batch, tmp_path: Path) -> None:
    watch = callback(tmp_path, added(batch))
    watch.on_log(None, state(1, first=False), None)
    watch.on_train_end(None, state(10, first=False), None)
    assert not (tmp_path / live_page.PAGE).exists()


def test_a_page_that_cannot_be_written_is_told_once(batch, tmp_path: Path, caplog, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    watch = callback(tmp_path / "file" / "run", added(batch))
    monkeypatch.setattr(live_page, "EVERY_S", 0.0)
    with caplog.at_level(logging.WARNING):
        watch.on_log(None, state(1), None)
        watch.on_log(None, state(2), None)
    assert caplog.text.count("training goes on") == 1


def test_sft_shows_the_latest_validation_answers(batch, tmp_path: Path) -> None:
    samples, done = batch[0][::2], batch[1][::2]
    shown = live_page.ValidationAnswers(Data([], samples, tmp_path), tmp_path)
    assert shown.groups == [], "before the first evaluation"
    for step, rows in ((9, done[:1]), (10, [replace(done[0], text="wrong", answer=batch[1][1].answer), *done[1:]])):
        write_jsonl(tmp_path / "validation" / f"step-{step}.jsonl", rows)
    groups = shown.groups
    assert [group.sample.id for group in groups] == ["s0", "s1", "s2"] and groups[0].answers[0].text == "wrong"
    assert [group.values for group in groups] == [{"score": [0.0]}, {"score": [1.0]}, {"score": [1.0]}]
    trainer: Any = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[]))
    live_page.LivePage(trainer, tmp_path, shown).on_train_end(None, state(10), None)
    assert (tmp_path / live_page.PAGE).read_text().count("data:image/") == 3


def test_a_run_without_answers_has_curves_alone(tmp_path: Path) -> None:
    text = page.html(page.Progress("run", 3, 9), [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0}], [], [])
    assert "cross-entropy" in text or "loss" in text
    assert "The latest answers" not in text


def test_tensorboard_gets_images_and_texts(batch, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "events"))
    callback(tmp_path, added(batch), writer).on_log(None, state(4), None)
    writer.close()
    read = accumulator.EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0, "tensors": 0})
    read.Reload()
    assert read.Tags()["images"] == [f"rollouts/{k}" for k in (1, 2, 3)]
    (image,) = read.Images("rollouts/1")
    assert image.step == 4 and image.width == page.SIDE and image.height == page.SIDE
    info = read.Tensors("rollouts/1/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "format 1.0, iou 1.0" in info and f"    {EVIL}" in info, "model text is code, not markup"
