"""How much memory of a GPU a run needs, calculated from the model's real shapes.

What is always in memory (weights, gradients, optimizer states, reference model) is exact up to padding. What comes and
goes is counted from the tensors that autograd keeps and that generation holds; a test compares the formula with what
torch keeps for the pocket model. Fragments that a freed block leaves behind are not counted; `FRAGMENTATION` is kept
free for them.

In all functions `counts` are the model's parameters as the run trains them, and `spec` is the run.
"""

from dataclasses import dataclass

from mllm.training.preflight.parameters import Dimensions, ParameterCounts
from mllm.training.preflight.run_spec import GenerationBatch, Hardware, RunSpec

GIB = 2**30
CUDA_CONTEXT = 1.0 * GIB  # CUDA, its libraries and NCCL before the first tensor: assumed; 0.6 to 1.2 GiB are usual
FRAGMENTATION = 0.05  # share of a GPU left to the allocator's fragmentation: assumed

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in 4 bits with double quantization: an 8-bit constant per 64 weights and a 32-bit one per 256 of
those constants (QLoRA, arXiv 2305.14314, section 3: 0.127 bits per weight)."""
BUCKET = 500_000_000
"""Elements of DeepSpeed's reduce bucket, and half of what ZeRO-3 keeps gathered (`max_live_parameters`); defaults."""
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Largest tile of the logits that TRL 1.16 computes at once in training (trl/kernels/chunked_logprob.py)."""

STATES = {"adamw_torch": 2.0, "adamw_torch_fused": 2.0, "paged_adamw_32bit": 2.0, "sgd": 0.0}
"""Optimizer states by name, in copies of the weights in their own number format."""
EIGHT_BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")
EIGHT_BIT_BYTES = 2 * (1 + 4 / 256)
"""Two moments of one byte each, with a 32-bit constant per 256 (Dettmers et al. 2022, arXiv 2110.02861)."""


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU: `always` by what they hold, and what each phase of a step adds to them."""

    always: dict[str, float]
    phases: dict[str, dict[str, float]]

    @property
    def peak(self) -> tuple[str, float]:
        """The phase that needs most, and the bytes in use then."""
        added = {phase: sum(parts.values()) for phase, parts in self.phases.items()}
        phase = max(added, key=lambda name: added[name])
        return phase, sum(self.always.values()) + added[phase]

    def fits(self, hardware: Hardware) -> bool:
        """Whether the peak fits beside the CUDA context and the share kept free for fragmentation."""
        return self.peak[1] + CUDA_CONTEXT <= (1 - FRAGMENTATION) * hardware.gpu_memory * GIB


def estimate(counts: ParameterCounts, spec: RunSpec) -> Estimate:
    """Estimate the memory of one GPU."""
    parts = {"weights": weights, "gradients": gradients, "optimizer": optimizer}
    always = {name: size(counts, spec) for name, size in parts.items()}
    if spec.beta:
        always["reference model"] = reference(counts, spec)
    if spec.vllm_share:
        always["vLLM's share"] = spec.vllm_share * spec.hardware.gpu_memory * GIB
    phases = {"learning": training_pass(counts, spec), "update": optimizer_step(counts, spec.hardware)}
    phases |= {batch.name: generation(counts, spec, batch) for batch in spec.generations}
    return Estimate(always, phases)


def weights(counts: ParameterCounts, spec: RunSpec) -> float:
    """Bytes of the weights.

    DeepSpeed in bfloat16 holds 2 bytes per parameter; ZeRO-3 a share of them, and up to `max_live_parameters` gathered
    (ZeRO, arXiv 1910.02054, section 3.1: 2 of the 16 bytes). Otherwise the width they were loaded with, 4-bit weights
    `NF4_BYTES`; adapters are float32, or bfloat16 on a 4-bit base (TRL casts them).
    """
    hardware = spec.hardware
    if hardware.deepspeed:
        total = 2.0 * (counts.parameters + counts.adapters)
        return total if hardware.zero < 3 else total / hardware.processes + min(total, 2.0 * 2 * BUCKET)
    base = (counts.parameters - counts.quantized) * spec.weight_bytes + counts.quantized * NF4_BYTES
    return base + counts.adapters * _adapter_bytes(counts)


def gradients(counts: ParameterCounts, spec: RunSpec) -> float:
    """Bytes of the gradients, in the number format of their weights.

    ZeRO-2 and 3 hold a share and the bucket being reduced; DDP holds them twice, once in its own buckets.
    """
    hardware = spec.hardware
    if hardware.deepspeed:
        total = 2.0 * counts.trainable
        return total if hardware.zero < 2 else total / hardware.processes + min(total, 2.0 * BUCKET)
    return _trained_bytes(counts, spec) * (2 if hardware.processes > 1 else 1)


def optimizer(counts: ParameterCounts, spec: RunSpec) -> float:
    """Bytes of the optimizer states; under DeepSpeed with the float32 master weights, and one process's share of both.

    AdamW: two moments. ZeRO, section 3.1: 12 of the 16 bytes per parameter are master weights and moments.
    """
    hardware, eight_bit = spec.hardware, spec.optim in EIGHT_BIT
    copies = STATES.get(spec.optim, 2.0)
    if hardware.deepspeed:
        each = 0.0 if hardware.offload else 4 + (EIGHT_BIT_BYTES if eight_bit else 4 * copies)
        return counts.trainable * each / (hardware.processes if hardware.zero >= 1 else 1)
    return counts.trainable * EIGHT_BIT_BYTES if eight_bit else copies * _trained_bytes(counts, spec)


def reference(counts: ParameterCounts, spec: RunSpec) -> float:
    """Bytes of the reference model of GRPO's KL term: a frozen copy, sharded only under ZeRO-3.

    With adapters the base itself is the reference; an adapter that is trained further is copied.
    """
    hardware = spec.hardware
    if counts.adapters:
        return counts.adapters * float(2 if hardware.deepspeed else _adapter_bytes(counts))
    if hardware.deepspeed:
        return 2.0 * counts.parameters / (hardware.processes if hardware.zero == 3 else 1)
    return float(counts.parameters * spec.weight_bytes)


def training_pass(counts: ParameterCounts, spec: RunSpec) -> dict[str, float]:
    """Bytes that one forward and backward pass adds: activations, attention mask, output layer, images.

    Without checkpointing every layer's tensors are kept; with it one input per layer, and one layer at a time is
    recomputed (Chen et al. 2016, arXiv 1604.06174). If the vision tower is trained, its layers are counted likewise.
    """
    dimensions, rows, length, width = counts.dimensions, spec.per_device, spec.lengths.row, spec.activation_bytes
    tokens, dropout = rows * length, spec.lora is not None and spec.lora.dropout > 0
    layer = tokens * layer_bytes(counts, width, dropout=dropout)
    flowing = tokens * 2.0 * (dimensions.hidden + dimensions.inner) * width  # gradients of activations in one layer
    if spec.settings.attention == "eager":
        layer += rows * dimensions.heads * length**2 * (4.0 + 2 * width)  # scores in float32, then weights
    if spec.checkpointing:
        kept = dimensions.layers * tokens * dimensions.hidden * width
        parts = {"layer inputs": float(kept), "one layer": layer + flowing}
    else:
        parts = {"layers": dimensions.layers * layer, "one layer's gradients": flowing}
    visual = spec.lengths.visual
    if counts.trains_vision:
        parts["vision tower"] = vision_bytes(dimensions, rows * visual, width, spec.checkpointing)
    parts["attention mask"] = rows * length**2 * (1.0 + width)
    parts["output layer"] = output_bytes(counts, rows * spec.scored_tokens, width)
    parts["images"] = spec.generation_rows * visual * dimensions.patches * dimensions.patch_values * 4.0
    if spec.autocast:
        parts["bfloat16 copies of weights"] = 2.0 * counts.trainable  # autocast keeps them until the pass is over
    return parts


def layer_bytes(counts: ParameterCounts, width: int, *, dropout: bool = False) -> float:
    """Bytes per token that autograd keeps for one decoder layer, under SDPA.

    h: hidden, a: queries' features, k: keys', f: MLP, w: `width`. When all of it is trained:

        two norms        2 (4h + wh)            the float32 input, the normalised one before its scale
        inputs           2 wh                   of q, k, v and of gate, up
        norms of q, k    (4 + w)(a + k)         Qwen3
        attention        4wa + 4 heads          q, k, v (repeated for every head), output, the sum of exponentials
        o_proj's input   wa
        MLP              4wf                    gate, its SiLU, up, their product

    With adapters on a frozen layer, the inputs and scales need nothing, and each adapter keeps its own input (with
    dropout also a mask of one byte).
    """
    d = counts.dimensions
    a, k = d.heads * d.head_dim, d.kv_heads * d.head_dim
    attention = 4.0 * width * a + 4 * d.heads
    if counts.adapters:
        kept = 8.0 * d.hidden + 4 * (a + k) * d.normed + attention + 3 * width * d.inner
        return kept + counts.adapted_features * (width + dropout)
    norms = 2.0 * (4 + width) * d.hidden + (4 + width) * (a + k) * d.normed
    return norms + 2 * width * d.hidden + attention + width * a + 4 * width * d.inner


def vision_bytes(dimensions: Dimensions, visual: int, width: int, checkpointing: bool) -> float:
    """Bytes kept of a trained vision tower for `visual` tokens (each of several patches).

    A layer keeps, per patch: two norms' inputs and outputs 4wd, q, k, v and attention's output 4wd, proj's input wd,
    and of the MLP 2wf (4wf with a gate).
    """
    d, patches = dimensions, visual * dimensions.patches
    layer = patches * width * (9.0 * d.vision_hidden + (4 if d.gated else 2) * d.vision_inner)
    if not checkpointing:
        return d.vision_layers * layer
    return d.vision_layers * patches * d.vision_hidden * float(width) + layer


def output_bytes(counts: ParameterCounts, scored: int, width: int) -> float:
    """Bytes of the output layer for `scored` tokens, as TRL 1.16 computes it: never all the logits at once.

    One tile of logits, the hidden states' gradient in float32, and the output weights' gradient in float32 when they
    are trained.
    """
    d = counts.dimensions
    tile = min(scored, TILE_TOKENS) * min(d.vocabulary, TILE_VOCABULARY) * float(width)
    return tile + scored * d.hidden * 4.0 + d.vocabulary * d.hidden * 4.0 * counts.head_trained


def optimizer_step(counts: ParameterCounts, hardware: Hardware) -> dict[str, float]:
    """Bytes that the optimizer step adds: under DeepSpeed, a process's share of the gradients in float32."""
    if not hardware.deepspeed:
        return {"": 0.0}
    return {"gradients in float32": 4.0 * counts.trainable / (hardware.processes if hardware.zero >= 1 else 1)}


def generation(counts: ParameterCounts, spec: RunSpec, batch: GenerationBatch) -> dict[str, float]:
    """Bytes that generating answers with transformers adds.

    KV cache: 2 x layers x keys' features x tokens, those kept free included, one layer's part twice while it grows.
    Logits: of one token per row in float32, three times (scores, sorted, probabilities). The prompt's pass: one layer's
    MLP. Under ZeRO-3 the weights are gathered on every GPU first (TRL's `ds3_gather_for_generation`).
    """
    from mllm.inference import kv_cache

    d, width = counts.dimensions, spec.activation_bytes
    tokens = kv_cache.allocated(batch.prompt, batch.length)
    growing = 1 / d.layers if tokens > kv_cache.allocated(batch.prompt, batch.prompt) else 0
    parts = {
        "KV cache": kv_cache_bytes(d, batch.rows * tokens, width) * (1 + growing),
        "logits": batch.rows * d.vocabulary * 4.0 * 3,
        "prompt's pass": batch.rows * batch.prompt * (4.0 * d.hidden + 3 * d.inner) * width,
    }
    if spec.hardware.deepspeed and spec.hardware.zero == 3:
        parts["gathered weights"] = 2.0 * (counts.parameters + counts.adapters)
    return parts


def kv_cache_bytes(dimensions: Dimensions, tokens: int, width: int = 2) -> float:
    """Bytes of keys and values of `tokens` tokens in all layers."""
    return 2.0 * dimensions.layers * dimensions.kv_heads * dimensions.head_dim * tokens * width


def _trained_bytes(counts: ParameterCounts, spec: RunSpec) -> float:
    """Bytes of the trained weights and adapters in their own number format, without DeepSpeed."""
    return sum(counts.trained.values()) * spec.weight_bytes + counts.adapters * _adapter_bytes(counts)


def _adapter_bytes(counts: ParameterCounts) -> int:
    """Bytes of one number of an adapter: float32, or bfloat16 on a base in 4 bits."""
    return 2 if counts.quantized else 4
