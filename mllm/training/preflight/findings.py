"""What was found, in words: one function for one topic."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from mllm.models.checkpoint import Checkpoint
from mllm.records import Sample
from mllm.rewards import BaseReward
from mllm.training.grpo.bag_sampler import BagSampler
from mllm.training.preflight import Finding, gold_rewards, parameters, runtime, suggestions
from mllm.training.preflight.base_model import Model
from mllm.training.preflight.memory import CONTEXT, GIB, Estimate
from mllm.training.preflight.parameters import Anatomy
from mllm.training.preflight.run_spec import Case, Dissect
from mllm.training.preflight.steps import Batches
from mllm.training.recipe import Recipe


def model(found: Model, body: Anatomy) -> Finding:
    """Say how many parameters the model has, and whether they are those published."""
    line = f"{found.name}: {body.parameters:,} parameters"
    if found.published is None:
        return Finding("model", "good", (f"{line}, counted from its config.json",))
    if found.published == body.parameters:
        return Finding("model", "good", (f"{line}, as published",))
    line += f"; published are {found.published:,}: this transformers builds it otherwise"
    return Finding("model", "bad", (line,))


def parts(body: Anatomy) -> Finding:
    """Say what is trained of each part."""
    lines = [f"{part:<9} {body.trained[part]:>13,} of {body.total[part]:>13,} trained" for part in parameters.PARTS]
    if body.adapters:
        lines.append(f"{'adapters':<9} {body.adapters:>13,} trained")
    if body.quantized:
        lines.append(f"{'in 4 bits':<9} {body.quantized:>13,} of {body.parameters:>13,}")
    return Finding("parameters", "good" if body.learning else "bad", tuple(lines))


def _memory_lines(found: Estimate) -> list[str]:
    moment, _ = found.peak
    lines = [f"{name:<26} {size / GIB:>7.2f} GiB" for name, size in found.stays.items()]
    adds = found.moments[moment]
    lines += [f"{name:<26} {size / GIB:>7.2f} GiB  while {moment}" for name, size in adds.items() if size]
    for name, others in found.moments.items():
        if name != moment and any(others.values()):
            lines.append(f"{'(' + name + ' adds':<26} {sum(others.values()) / GIB:>7.2f} GiB)")
    return lines


def gold_answers(
    samples: Sequence[Sample], chosen: dict[str, tuple[BaseReward, float]], checkpoint: Checkpoint
) -> Finding:
    """Score the rows' own answers under the run's rewards."""
    found = gold_rewards.score(samples, chosen, checkpoint)
    lines = []
    for one in found:
        if one.missing:
            lines.append(f"{one.name}: not scored: {one.missing}")
            continue
        if not one.applies:
            lines.append(f"{one.name}: applies to no row")
            continue
        full = one.low >= one.possible - gold_rewards.ROUNDING
        well = "full marks but for rounding" if full else "each earns something"
        lines.append(
            f"{one.name}: {one.low:.3f} to {one.high:.3f}, mean {one.mean:.3f}, of {one.possible:g}; "
            + (f"{one.short} rows fall short, worst {one.worst}" if one.short else well)
            + ("" if one.swapped is None else f"; another row's answer: mean {one.swapped:.3f}")
        )
    thoughtless = sum(sample.thought is None and sample.task != "caption" for sample in samples)
    if thoughtless and checkpoint.convention.prompt == "think":
        lines.append(f"{thoughtless} rows have no thought: a stand-in was scored in its place")
    if any(one.short or not (one.applies or one.missing) for one in found):
        return Finding("gold answers", "bad", tuple(lines))
    return Finding("gold answers", "not checked" if any(one.missing for one in found) else "good", tuple(lines))


def bags(made: BagSampler) -> Finding:
    """Say how many bags there are, and what a generation batch is made of."""
    lines = [f"{len(made.bags[size])} bags of {size}" for size in made.sizes]
    told = ", ".join(f"{size} for {epochs}" for epochs, size in made.schedule.stages)
    until = f" or until {made.schedule.saturation:.0%} of them retrieve" if made.schedule.saturation else ""
    lines.append(f"sizes and epochs: {told}{until}; the last goes on")
    full = {size: made.batch // size * size for size in made.sizes}
    alone = ", ".join(f"{made.batch - used} beside bags of {size}" for size, used in full.items() if used < made.batch)
    lines.append(f"{made.batch} images in a generation batch{'; single ones: ' + alone if alone else ''}")
    return Finding("bags", "good", tuple(lines))


def batch_sizes(read: Recipe, found: Batches | None) -> Finding:
    """Say what an update is made of, and how many there are."""
    args = read.args
    rows = f"{read.per_device} rows x {read.processes} processes x {args.gradient_accumulation_steps} accumulated"
    whole = read.per_device * read.processes * args.gradient_accumulation_steps
    lines = [f"an update learns from {whole} {'answers' if read.kind == 'rl' else 'rows'}: {rows}"]
    if read.kind == "rl":
        prompts = args.generation_batch_size // args.num_generations
        updates = args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps
        lines.append(
            f"{prompts} prompts x {args.num_generations} answers are drawn at a time; updates a draw: {updates:g}"
        )
    if found is None:
        lines.append(f"updates: {args.max_steps}" if args.max_steps > 0 else f"epochs: {args.num_train_epochs:g}")
        return Finding("batches", "good", tuple(lines))
    lines.append(f"{found.updates} updates, {found.updates_per_epoch} an epoch: {found.epochs:.2f} epochs")
    if found.draws:
        lines.append(f"{found.draws * found.drawn} answers are written in all")
    if found.dropped:
        lines.append(f"{found.dropped} rows at an epoch's end fill no whole batch (others, next time)")
    return Finding("batches", "good", tuple(lines))


def memory(run: Case, dissect: Dissect) -> Finding:
    """Work out the memory of a GPU, and what to change where it is not enough."""
    found = run.estimate(dissect)
    moment, peak = found.peak
    has = run.machine.gpu_memory
    lines = [
        *_memory_lines(found),
        f"peak {peak / GIB:.1f} GiB while {moment}, and {CONTEXT / GIB:.1f} GiB for CUDA, of {has:g} GiB on "
        f"each of {run.machine.processes}",
    ]
    if not run.lengths.counted:
        lines.append(f"for rows of {run.lengths.whole} tokens, the longest that may pass")
    if found.fits(run.machine):
        return Finding("memory", "good", tuple(lines))
    lines.append("does not fit. Each of these was worked out anew:")
    for one in suggestions.advise(run, dissect):
        lines.append(f"  {one}{'' if one.fits else ', which still does not fit: take a smaller model'}")
    return Finding("memory", "bad", tuple(lines))


def time(run: Case, body: Anatomy, steps: Batches, tokens: float, counted: bool) -> Finding:
    """Say the least time that the run can take."""
    least = runtime.bound(run, body, steps, tokens)
    how = f"{run.machine.processes} x {least.card.name} ({least.card.operations / 1e12:g} TFLOP/s, "
    how += f"{least.card.bandwidth / 1e12:g} TB/s)"
    shares = f"learning {least.learning / 3600:.2f} h"
    shares += f", writing {least.writing / 3600:.2f} h" if least.writing else ""
    rows = f"rows of {tokens:.0f} tokens{'' if counted else ' (the longest that may pass)'}"
    line = f"no sooner than {least.hours:.2f} h on {how} at full use: {shares}; {rows}"
    return Finding("time", "good", (line, "a bound by arithmetic, not a forecast; evaluation and loading are left out"))


def spread(values: Sequence[int]) -> str:
    """Say from where to where lengths go."""
    return f"{min(values)} to {max(values)} tokens, median {median(values):g}"
