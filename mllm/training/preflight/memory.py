"""How much of a GPU a run takes, by arithmetic on the model's real shapes.

What stays all the time (weights, gradients, optimizer states, reference model) is exact up to padding. What comes and
goes is counted from the tensors that autograd keeps and that generation holds; a test compares the formula with what
torch really keeps for the pocket model. Not counted: pieces that a freed block leaves behind, for which `ROOM` is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mllm.training.preflight.hardware import Machine
from mllm.training.preflight.parameters import Anatomy, Sizes

GIB = 2**30
CONTEXT = 1.0 * GIB
"""Taken by CUDA, its libraries and NCCL before the first tensor: assumed, 0.6 to 1.2 GiB are seen."""
ROOM = 0.05
"""Share of a GPU left to the allocator's fragmentation: assumed."""

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""A weight in 4 bits, doubly quantized: an 8-bit constant for 64 weights, and a 32-bit one for 256 of those constants
(QLoRA, arXiv 2305.14314, section 3: 0.127 bits a weight)."""
BUCKET = 500_000_000
"""Elements of DeepSpeed's reduce bucket, and half of what ZeRO-3 keeps gathered (`max_live_parameters`); defaults."""
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Largest piece of the logits that TRL 1.16 makes at once while learning (trl/kernels/chunked_logprob.py)."""

STATES = {"adamw_torch": 2.0, "adamw_torch_fused": 2.0, "paged_adamw_32bit": 2.0, "sgd": 0.0}
"""Optimizer states by name, in copies of the weights in their own number format."""
EIGHT_BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")
EIGHT_BIT_BYTES = 2 * (1 + 4 / 256)
"""Two moments of one byte each, with a 32-bit constant every 256 (Dettmers et al. 2022, arXiv 2110.02861)."""


@dataclass(frozen=True)
class Draw:
    """Answers written at once by one process: `rows` of `prompt` tokens each, up to `length` with the answer."""

    name: str
    rows: int
    prompt: int
    length: int


@dataclass(frozen=True)
class Load:
    """What one process holds at the worst moment of a run. Lengths in tokens.

    `rows` of `length` tokens are learned from at once, `scored` of each under the loss, `visual` of each from its
    image; `held` rows of pixels wait for their turn. `width` is the size of a weight in bytes as loaded, `bf16` says
    that activations are in two bytes whatever the weights are in.
    """

    rows: int
    length: int
    scored: int
    visual: int
    held: int
    width: int
    bf16: bool
    checkpointing: bool
    eager: bool
    optim: str
    reference: bool
    dropout: bool
    draws: tuple[Draw, ...]
    vllm_share: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU: what stays, and what each moment adds to it."""

    stays: dict[str, float]
    moments: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def peak(self) -> tuple[str, float]:
        """The moment that takes most, and the bytes then."""
        added = {moment: sum(parts.values()) for moment, parts in self.moments.items()}
        moment = max(added, key=lambda name: added[name])
        return moment, sum(self.stays.values()) + added[moment]

    def fits(self, machine: Machine) -> bool:
        """Whether the peak leaves what CUDA takes and the room for fragments."""
        return self.peak[1] + CONTEXT <= (1 - ROOM) * machine.gpu_memory * GIB


def estimate(anatomy: Anatomy, load: Load, machine: Machine) -> Estimate:
    """Work out one GPU's memory."""
    stays = {
        "weights": weights(anatomy, load, machine),
        "gradients": gradients(anatomy, load, machine),
        "optimizer": optimizer(anatomy, load, machine),
    }
    if load.reference:
        stays["reference model"] = reference(anatomy, load, machine)
    if load.vllm_share:
        stays["vLLM's share"] = load.vllm_share * machine.gpu_memory * GIB
    moments = {"learning": learning(anatomy, load, machine), "update": update(anatomy, machine)}
    moments |= {draw.name: drawing(anatomy, load, draw, machine) for draw in load.draws}
    return Estimate(stays, moments)


def weights(anatomy: Anatomy, load: Load, machine: Machine) -> float:
    """Bytes of the weights.

    DeepSpeed in bfloat16 holds 2 bytes a parameter; ZeRO-3 a share of them, and up to `max_live_parameters` gathered
    (ZeRO, arXiv 1910.02054, section 3.1: 2 of the 16 bytes). Else the width they were loaded with, 4-bit weights
    `NF4_BYTES`; adapters float32, bfloat16 on a 4-bit base (TRL casts them).
    """
    if machine.deepspeed:
        whole = 2.0 * (anatomy.parameters + anatomy.adapters)
        if machine.zero < 3:
            return whole
        return whole / machine.processes + min(whole, 2.0 * 2 * BUCKET)
    base = (anatomy.parameters - anatomy.quantized) * load.width + anatomy.quantized * NF4_BYTES
    return base + anatomy.adapters * _adapter_width(anatomy)


def gradients(anatomy: Anatomy, load: Load, machine: Machine) -> float:
    """Bytes of the gradients, in the number format of what they belong to.

    ZeRO-2 and 3 hold a share and the bucket being reduced; DDP holds them twice, once in its own buckets.
    """
    if machine.deepspeed:
        whole = 2.0 * anatomy.learning
        return whole if machine.zero < 2 else whole / machine.processes + 2.0 * min(BUCKET, anatomy.learning)
    whole = sum(anatomy.trained.values()) * load.width + anatomy.adapters * _adapter_width(anatomy)
    return whole * (2 if machine.processes > 1 else 1)


def optimizer(anatomy: Anatomy, load: Load, machine: Machine) -> float:
    """Bytes of the optimizer's states. Under DeepSpeed with the float32 masters, and a process's share of both.

    AdamW: two moments. ZeRO, section 3.1: 12 of the 16 bytes a parameter are masters and moments.
    """
    eight = EIGHT_BIT_BYTES if load.optim in EIGHT_BIT else None
    copies = STATES.get(load.optim, 2.0)
    if machine.deepspeed:
        if machine.offload:
            return 0.0
        shared = machine.processes if machine.zero >= 1 else 1
        return anatomy.learning * (4 + (eight if eight is not None else 4 * copies)) / shared
    if eight is not None:
        return anatomy.learning * eight
    adapters = anatomy.adapters * _adapter_width(anatomy)
    return copies * (sum(anatomy.trained.values()) * load.width + adapters)


def reference(anatomy: Anatomy, load: Load, machine: Machine) -> float:
    """Bytes of the model that GRPO's KL term compares with: a frozen copy, sharded only under ZeRO-3.

    With adapters the base itself is the reference; an adapter that is trained further is copied.
    """
    if anatomy.adapters:
        return anatomy.adapters * float(2 if machine.deepspeed else _adapter_width(anatomy))
    if machine.deepspeed:
        return 2.0 * anatomy.parameters / (machine.processes if machine.zero == 3 else 1)
    return float(anatomy.parameters * load.width)


def learning(anatomy: Anatomy, load: Load, machine: Machine) -> dict[str, float]:
    """Bytes that one forward and backward pass adds: activations, attention mask, output layer, images.

    Without checkpointing every layer's tensors are kept; with it one input a layer, and one layer at a time is made
    anew (Chen et al. 2016, arXiv 1604.06174). Where the vision tower learns, its layers are counted alike.
    """
    sizes, tokens = anatomy.sizes, load.rows * load.length
    width = 2 if load.bf16 or machine.deepspeed else load.width
    one = tokens * layer_bytes(anatomy, width, dropout=load.dropout)
    back = tokens * 2.0 * (sizes.hidden + sizes.inner) * width  # gradients of activations on their way through a layer
    if load.eager:
        one += load.rows * sizes.heads * load.length**2 * (4.0 + 2 * width)  # scores in float32, then weights
    if load.checkpointing:
        kept = sizes.layers * tokens * sizes.hidden * width
        parts = {"layer inputs": float(kept), "one layer": one + back}
    else:
        parts = {"layers": sizes.layers * one, "one layer's gradients": back}
    if anatomy.vision_learns:
        parts["vision tower"] = vision_bytes(sizes, load.rows * load.visual, width, load.checkpointing)
    parts["attention mask"] = load.rows * load.length**2 * (1.0 + width)
    parts["output layer"] = output_bytes(anatomy, load.rows * load.scored, width)
    parts["images"] = load.held * load.visual * sizes.patches * sizes.patch_values * 4.0
    if not machine.deepspeed and load.bf16 and load.width == 4:
        parts["bfloat16 copies of weights"] = 2.0 * anatomy.learning  # autocast keeps them until the pass is over
    return parts


def layer_bytes(anatomy: Anatomy, width: int, *, dropout: bool = False) -> float:
    """Bytes a token that autograd keeps for one decoder layer, under SDPA.

    h: hidden, a: queries' features, k: keys', f: MLP, w: `width`. When all of it learns:

        two norms        2 (4h + wh)            the float32 input, the normalised one before its scale
        inputs           2 wh                   of q, k, v and of gate, up
        norms of q, k    (4 + w)(a + k)         Qwen3
        attention        4wa + 4 heads          q, k, v (repeated for every head), output, the sum of exponentials
        o_proj's input   wa
        MLP              4wf                    gate, its SiLU, up, their product

    With adapters on a frozen layer, the inputs and scales need nothing, and each adapter keeps its own input (with
    dropout a mask of one byte, too).
    """
    s = anatomy.sizes
    a, k = s.heads * s.head_dim, s.kv_heads * s.head_dim
    attention = 4.0 * width * a + 4 * s.heads
    if anatomy.adapters:
        kept = 8.0 * s.hidden + 4 * (a + k) * s.normed + attention + 3 * width * s.inner
        return kept + anatomy.adapted * (width + dropout)
    norms = 2.0 * (4 + width) * s.hidden + (4 + width) * (a + k) * s.normed
    return norms + 2 * width * s.hidden + attention + width * a + 4 * width * s.inner


def vision_bytes(sizes: Sizes, visual: int, width: int, checkpointing: bool) -> float:
    """Bytes kept of the vision tower for `visual` tokens (each of several patches), when it learns.

    A layer keeps, a patch: two norms' inputs and outputs 4wd, q, k, v and attention's output 4wd, proj's input wd, and
    of the MLP 2wf (4wf with a gate).
    """
    patches = visual * sizes.patches
    layer = patches * width * (9.0 * sizes.vision_hidden + (4 if sizes.gated else 2) * sizes.vision_inner)
    if not checkpointing:
        return sizes.vision_layers * layer
    return sizes.vision_layers * patches * sizes.vision_hidden * float(width) + layer


def output_bytes(anatomy: Anatomy, scored: int, width: int) -> float:
    """Bytes of the output layer for `scored` tokens, as TRL 1.16 computes it: never all the logits.

    One tile of logits, the hidden states' gradient in float32, and the output weights' gradient in float32 when they
    learn.
    """
    s = anatomy.sizes
    tile = min(scored, TILE_TOKENS) * min(s.vocabulary, TILE_VOCABULARY) * float(width)
    return tile + scored * s.hidden * 4.0 + s.vocabulary * s.hidden * 4.0 * anatomy.head_trained


def update(anatomy: Anatomy, machine: Machine) -> dict[str, float]:
    """Bytes that the optimizer's step adds: under DeepSpeed, a process's share of the gradients in float32."""
    if not machine.deepspeed:
        return {"": 0.0}
    return {"gradients in float32": 4.0 * anatomy.learning / (machine.processes if machine.zero >= 1 else 1)}


def drawing(anatomy: Anatomy, load: Load, draw: Draw, machine: Machine) -> dict[str, float]:
    """Bytes that writing answers with transformers adds.

    KV cache: 2 x layers x keys' features x tokens, one layer's part twice while it grows. Logits: of one token a row in
    float32, three times (scores, sorted, probabilities). The prompt's pass: one layer's MLP. Under ZeRO-3 the weights
    are gathered on every GPU first (TRL's `ds3_gather_for_generation`).
    """
    s = anatomy.sizes
    width = 2 if load.bf16 or machine.deepspeed else load.width
    cache = kv_bytes(s, draw.rows * draw.length, width)
    parts = {
        "KV cache": cache * (1 + 1 / s.layers),
        "logits": draw.rows * s.vocabulary * 4.0 * 3,
        "prompt's pass": draw.rows * draw.prompt * (4.0 * s.hidden + 3 * s.inner) * width,
    }
    if machine.deepspeed and machine.zero == 3:
        parts["gathered weights"] = 2.0 * (anatomy.parameters + anatomy.adapters)
    return parts


def kv_bytes(sizes: Sizes, tokens: int, width: int = 2) -> float:
    """Bytes of keys and values of `tokens` tokens in all layers."""
    return 2.0 * sizes.layers * sizes.kv_heads * sizes.head_dim * tokens * width


def _adapter_width(anatomy: Anatomy) -> int:
    """Bytes of an adapter's number: float32, or bfloat16 on a base in 4 bits."""
    return 2 if anatomy.quantized else 4
