"""Measures one size: the parts of a GRPO step by stock TRL and by the engine, the floor, and the learner's peak memory.

Same process, same weights, same rollouts; the two ways take turns. Times are CPU seconds of one thread, medians.
"Rest" is what a GRPO step does besides sampling and learning: preparing images, rewards, bookkeeping.
"""

from __future__ import annotations

import ctypes
import io
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image

from bench.parts.clock import cpu_seconds
from bench.parts.models import build, token_side
from mllm.models.cpu_kernels import use_fast_kernels
from mllm.pocket.scene_store import training_scene
from mllm.training.engine.image_memory import remember_images
from mllm.training.grpo.trainer import PrefixGRPOTrainer

from trl import GRPOConfig  # isort: skip

Pair = tuple[float, float]
TEXT = 40
"""Tokens of the question and of the chat template."""


@dataclass(frozen=True)
class Size:
    """What is measured: a model family of bench/parts/models.py, tokens of prompt and completion, answers a prompt."""

    family: str
    prompt: int
    completion: int
    group: int

    @property
    def name(self) -> str:
        """The size as used in file names."""
        return f"{self.family}-{self.prompt}-{self.completion}-{self.group}"


@dataclass(frozen=True)
class Result:
    """Medians, (stock, ours): CPU seconds; tokens that the language model reads in a learner step; MiB by which a
    learner step raises the memory in use.

    `prompt` is the prompt's actual length; `share` the completions per shared prompt; `floor` the CPU seconds of the
    learner's unavoidable multiply-adds, at the rate of large matrix products; `image` those of reading and preparing an
    image, which is all that preparing images ahead could save per step; `rounds` the number of measurements.
    """

    size: Size
    prompt: int
    share: float
    learner: Pair
    rollout: Pair
    rest: Pair
    tokens: Pair
    floor: float
    image: float
    rounds: int
    memory: Pair | None = None

    @property
    def step(self) -> Pair:
        """CPU seconds of a complete GRPO step."""
        stock, ours = (self.learner[k] + self.rollout[k] + self.rest[k] for k in (0, 1))
        return stock, ours

    @property
    def allowed(self) -> float:
        """What Amdahl's law allows a whole step: learning and sampling as much faster as each was measured to be, the
        rest as slow as it was in stock."""
        return self.step[0] / (self.learner[1] + self.rollout[1] + self.rest[0])


def measure(size: Size, rounds: int) -> Result:
    """Measure both ways `rounds` times in turns, after a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(size, folder)
        inputs = next(iter(made.get_train_dataloader()))
        times: dict[str, tuple[list[float], list[float]]] = {part: ([], []) for part in ("learner", "rollout", "rest")}
        sampling, tokens = clock_calls(made, "_generate_single_turn"), _count_tokens(made)
        batch: dict[str, Any] = {}
        for turn in range(rounds + 1):
            for way, shares in enumerate((False, True)):
                made.shares_prefix = shares
                torch.manual_seed(turn)
                sampling.clear()
                whole = cpu_seconds(lambda: batch.update(made._generate_and_score_completions(inputs)))
                tokens[way] = 0
                learner = cpu_seconds(partial(_learn, made, batch if shares else _plain(batch), tokens, way))
                if turn:
                    times["learner"][way].append(learner)
                    times["rollout"][way].append(sum(sampling))
                    times["rest"][way].append(whole - sum(sampling))
        pairs = {part: (statistics.median(both[0]), statistics.median(both[1])) for part, both in times.items()}
        prompt = int(batch["prompt_mask"][0].sum())
        share = made._metrics["train"]["engine/completions_per_row"][-1]
        floor = _floor(made, prompt, size) / _matrix_rate()
    return Result(
        size,
        prompt,
        share,
        **pairs,
        tokens=(tokens[0], tokens[1]),
        floor=floor,
        image=_preparing(size, rounds),
        rounds=rounds,
    )


def peak(size: Size, way: str) -> int:
    """Return the MiB by which a learner step of `way` (stock, prefix) raises this process's memory.

    Completions are random. Call it in a separate process in which freed memory is not kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(size, folder)
        made.model.generate = partial(_random_completions, size.completion)
        batch = made._generate_and_score_completions(next(iter(made.get_train_dataloader())))
        held = batch if way == "prefix" else _plain(batch)
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _status("VmRSS")
        _learn(made, held, [0, 0], 0)
        return (_status("VmHWM") - before) // 1024


def trainer(size: Size, folder: str) -> PrefixGRPOTrainer:
    """Return a trainer with prompts of about the wanted length and completions of exactly the wanted length."""
    model, processor = build(size.family)
    use_fast_kernels(model)
    model.model.visual.requires_grad_(False)
    image = _image(processor, size.prompt - TEXT)
    remember_images(processor)
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Find the bird: " + "round red " * 8}, {"type": "image"}]}
    ]

    def look_up(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        return {"prompt": [messages] * len(batch["row"]), "images": [[image]] * len(batch["row"])}

    settings = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=size.group, num_generations=size.group,
        max_completion_length=size.completion, generation_kwargs={"min_new_tokens": size.completion}, beta=0.0,
        bf16=False, use_cpu=True, report_to="none", gradient_checkpointing=False, disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    made = PrefixGRPOTrainer(
        model=model,
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 97) for ids in completion_ids],
        args=settings,
        train_dataset=Dataset.from_dict({"row": [0, 1]}).with_transform(look_up),
        processing_class=processor,
    )
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def _image(processor: Any, visual: int) -> Image.Image:
    """Return an image of about `visual` tokens, and set the processor so that it does not resize it."""
    side, across = token_side(processor), max(2, round(visual**0.5))
    pixels = (across * side, max(1, round(visual / across)) * side)
    area = pixels[0] * pixels[1]
    processor.image_processor.size = {"shortest_edge": area, "longest_edge": area}
    return training_scene(0, "bench", 3).image.resize(pixels, Image.Resampling.BILINEAR)


def _preparing(size: Size, rounds: int) -> float:
    """Return the CPU seconds from a PNG file's bytes to the vision tower's input."""
    _, processor = build(size.family)
    file = io.BytesIO()
    _image(processor, size.prompt - TEXT).save(file, "PNG")

    def prepare() -> None:
        processor.image_processor(images=[Image.open(file).convert("RGB")], return_tensors="pt")

    prepare()
    return statistics.median(cpu_seconds(prepare) for _ in range(rounds))


def _plain(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the batch as stock TRL makes it."""
    return {name: value for name, value in batch.items() if name not in ("run", "features")}


def _learn(made: PrefixGRPOTrainer, batch: dict[str, Any], tokens: list[int], way: int) -> None:
    made.model.zero_grad()
    tokens.append(way)  # tells the hook which way it counts for
    made._compute_loss(made.model, batch).backward()
    tokens.pop()


def _count_tokens(made: PrefixGRPOTrainer) -> list[int]:
    """Count tokens of learner steps, [stock, ours]; only while a third entry says which of them."""
    counted = [0, 0]

    def hook(module: Any, args: Any) -> None:
        if len(counted) == 3:
            counted[counted[2]] += args[0].shape[0] * args[0].shape[1]

    made.model.model.language_model.layers[0].register_forward_pre_hook(hook)
    return counted


def clock_calls(made: PrefixGRPOTrainer, name: str) -> list[float]:
    """Record the CPU seconds of each call of a method."""
    stock, taken = getattr(made, name), []

    def clocked(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        found = stock(*args, **kwargs)
        taken.append(time.process_time() - started)
        return found

    setattr(made, name, clocked)
    return taken


def _floor(made: PrefixGRPOTrainer, prompt: int, size: Size) -> float:
    """Return the multiply-adds of a learner step that reads the prompt once: forward, and twice that backward."""
    text, costs = made.model.config.get_text_config(), made._costs
    head, learned = text.vocab_size * text.hidden_size, size.group * size.completion
    matrices = (prompt + learned) * (costs.per_token - head) + learned * head
    pairs = prompt**2 / 2 + learned * (prompt + size.completion / 2)
    return 3 * (matrices + pairs * costs.per_pair)


def _matrix_rate() -> float:
    """Return the multiply-adds per second of a large float32 matrix product on one thread; the best of five."""
    one, other = torch.randn(1024, 1024), torch.randn(1024, 1024)
    torch.mm(one, other)
    return 4 * 1024**3 / min(cpu_seconds(lambda: [torch.mm(one, other) for _ in range(4)]) for _ in range(5))


def _random_completions(length: int, *, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
    """Replace `generate`: append `length` random tokens to each prompt."""
    drawn = torch.randint(100, 800, (len(input_ids), length), generator=torch.Generator().manual_seed(0))
    return torch.cat([input_ids, drawn], 1)


def _status(name: str) -> int:
    """Return the KiB in a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
