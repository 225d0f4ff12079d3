"""The findings in words: one function per topic."""

from collections.abc import Sequence
from statistics import median

from mllm.models.checkpoint import Checkpoint
from mllm.records import Sample
from mllm.rewards import BaseReward
from mllm.training.grpo.bag_sampler import BagSampler
from mllm.training.preflight import Finding, gold_rewards, parameters, runtime, suggestions
from mllm.training.preflight.base_model import BaseModel
from mllm.training.preflight.memory import CUDA_CONTEXT, GIB, estimate
from mllm.training.preflight.parameters import CountParameters, ParameterCounts
from mllm.training.preflight.run_spec import RunSpec
from mllm.training.preflight.runtime import StepCounts
from mllm.training.recipe import Recipe


def model_size(model: BaseModel, counts: ParameterCounts) -> Finding:
    """Report how many parameters the model has, and whether that is the published number."""
    line = f"{model.name}: {counts.parameters:,} parameters"
    if model.published is None:
        return Finding("model", "good", (f"{line}, counted from its config.json",))
    if model.published == counts.parameters:
        return Finding("model", "good", (f"{line}, as published",))
    line += f"; published: {model.published:,}; the installed transformers builds another model"
    return Finding("model", "bad", (line,))


def trained_parts(counts: ParameterCounts) -> Finding:
    """Report how many parameters of each part are trained."""
    lines = [f"{part:<9} {counts.trained[part]:>13,} of {counts.total[part]:>13,} trained" for part in parameters.PARTS]
    if counts.adapters:
        lines.append(f"{'adapters':<9} {counts.adapters:>13,} trained")
    if counts.quantized:
        lines.append(f"{'in 4 bits':<9} {counts.quantized:>13,} of {counts.parameters:>13,}")
    return Finding("parameters", "good" if counts.trainable else "bad", tuple(lines))


def gold_answers(
    samples: Sequence[Sample], rewards: dict[str, tuple[BaseReward, float]], checkpoint: Checkpoint
) -> Finding:
    """Score the rows' own answers with the run's rewards."""
    scores = gold_rewards.score(samples, rewards, checkpoint)
    lines = []
    for one in scores:
        if not one.applies:
            lines.append(f"{one.name}: {f'not scored: {one.missing}' if one.missing else 'applies to no row'}")
            continue
        full = one.low >= one.possible - gold_rewards.ROUNDING
        verdict = "full marks but for rounding" if full else "each earns something"
        lines.append(
            f"{one.name}: {one.low:.3f} to {one.high:.3f}, mean {one.mean:.3f}, of {one.possible:g}; "
            + (f"{one.short} rows fall short, worst {one.worst}" if one.short else verdict)
            + ("" if one.swapped is None else f"; another row's answer: mean {one.swapped:.3f}")
        )
    without_thought = sum(sample.thought is None and sample.task != "caption" for sample in samples)
    if without_thought and checkpoint.convention.prompt == "think":
        lines.append(f"{without_thought} rows have no thought: a placeholder was scored in its place")
    if any(one.short or not (one.applies or one.missing) for one in scores):
        return Finding("gold answers", "bad", tuple(lines))
    return Finding("gold answers", "not checked" if any(one.missing for one in scores) else "good", tuple(lines))


def bags(sampler: BagSampler) -> Finding:
    """Report how many bags there are, and what a generation batch is made of."""
    lines = [f"{len(sampler.bags[size])} bags of {size}" for size in sampler.sizes]
    schedule = sampler.schedule
    stages = ", ".join(f"{size} for {epochs}" for epochs, size in schedule.stages)
    until = f" or until {schedule.saturation:.0%} of them retrieve" if schedule.saturation else ""
    lines.append(f"sizes and epochs: {stages}{until}; the last repeats")
    full = {size: sampler.batch // size * size for size in sampler.sizes}
    singles = [f"{sampler.batch - used} beside bags of {size}" for size, used in full.items() if used < sampler.batch]
    beside = f"; single ones: {', '.join(singles)}" if singles else ""
    lines.append(f"{sampler.batch} images in a generation batch{beside}")
    return Finding("bags", "good", tuple(lines))


def batch_sizes(recipe: Recipe, steps: StepCounts | None) -> Finding:
    """Report what an update is made of, and how many there are."""
    args = recipe.args
    accumulation = args.gradient_accumulation_steps
    factors = f"{recipe.per_device} rows x {recipe.processes} processes x {accumulation} accumulated"
    rows = recipe.per_device * recipe.processes * accumulation
    lines = [f"an update learns from {rows} {'answers' if recipe.kind == 'rl' else 'rows'}: {factors}"]
    if recipe.kind == "rl":
        prompts = args.generation_batch_size // args.num_generations
        updates = args.steps_per_generation * args.num_iterations / accumulation
        lines.append(
            f"{prompts} prompts x {args.num_generations} answers are generated at a time; "
            f"updates per generation: {updates:g}"
        )
    if steps is None:
        lines.append(f"updates: {args.max_steps}" if args.max_steps > 0 else f"epochs: {args.num_train_epochs:g}")
        return Finding("batches", "good", tuple(lines))
    lines.append(f"{steps.updates} updates, {steps.updates_per_epoch} per epoch: {steps.epochs:.2f} epochs")
    if steps.generations:
        lines.append(f"{steps.generations * steps.answers} answers are generated in total")
    if steps.dropped:
        lines.append(f"{steps.dropped} rows at an epoch's end fill no complete batch (others in the next epoch)")
    return Finding("batches", "good", tuple(lines))


def memory(spec: RunSpec, count: CountParameters) -> Finding:
    """Estimate the memory of a GPU, and what to change if it is not enough."""
    found = estimate(count(spec.settings, spec.lora), spec)
    phase, peak = found.peak
    lines = [
        *(f"{name:<26} {size / GIB:>7.2f} GiB" for name, size in found.always.items()),
        *(f"{name:<26} {size / GIB:>7.2f} GiB  while {phase}" for name, size in found.phases[phase].items() if size),
        *(
            f"{'(' + name + ' adds':<26} {sum(parts.values()) / GIB:>7.2f} GiB)"
            for name, parts in found.phases.items()
            if name != phase and any(parts.values())
        ),
        f"peak {peak / GIB:.1f} GiB while {phase}, and {CUDA_CONTEXT / GIB:.1f} GiB for CUDA, of "
        f"{spec.hardware.gpu_memory:g} GiB on each of {spec.hardware.processes}",
    ]
    if not spec.lengths.counted:
        lines.append(f"for rows of {spec.lengths.row} tokens, the longest allowed")
    if found.fits(spec.hardware):
        return Finding("memory", "good", tuple(lines))
    lines.append("does not fit. Each of these changes was estimated again:")
    for one in suggestions.suggest(spec, count):
        lines.append(f"  {one}{'' if one.fits else ', which still does not fit: use a smaller model'}")
    return Finding("memory", "bad", tuple(lines))


def time(spec: RunSpec, counts: ParameterCounts, steps: StepCounts, tokens: float) -> Finding:
    """Report the least time that the run can take on rows of `tokens` tokens on average."""
    gpu, training, generation = runtime.least_time(spec, counts, steps, tokens)
    speed = f"{gpu.operations / 1e12:g} TFLOP/s, {gpu.bandwidth / 1e12:g} TB/s"
    shares = f"training {training:.2f} h{f', generation {generation:.2f} h' if generation else ''}"
    rows = f"rows of {tokens:.0f} tokens{'' if spec.lengths.counted else ' (the longest allowed)'}"
    gpus = f"{spec.hardware.processes} x {gpu.name} ({speed})"
    line = f"no sooner than {training + generation:.2f} h on {gpus} at full use"
    note = "a lower bound by arithmetic, not a forecast; without evaluation and loading"
    return Finding("time", "good", (f"{line}: {shares}; {rows}", note))


def lengths(values: Sequence[int], note: str = "") -> tuple[str, ...]:
    """Return the range and the median of lengths in tokens, and a histogram: lines of `from-to  count  bar`."""
    low, high = min(values), max(values)
    step = max(-(-(high - low + 1) // 8), 1)  # 8 bars at most
    counts = [0] * (-(-(high - low + 1) // step))
    for value in values:
        counts[(value - low) // step] += 1
    ends = [(low + k * step, min(low + (k + 1) * step - 1, high)) for k in range(len(counts))]
    bars = (f"{a:>6}-{b:<6}{n:>7}  {'#' * -(-n * 40 // max(counts))}" for (a, b), n in zip(ends, counts, strict=True))
    return f"{low} to {high} tokens, median {median(values):g}{note}", *bars
