"""Before vLLM generates a run's completions: does it read the same prompt as the model, with the same probabilities?

TRL 1.16 sends vLLM prompts with expanded image tokens, which vLLM expands again (huggingface/trl#6294). A server also
reads images by itself, and TRL takes the tokens that it sent for those that were read.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import TrainerCallback
from trl.data_utils import prepare_multimodal_messages
from trl.models.utils import unwrap_model_for_generation

from mllm.errors import FieldmarkError
from mllm.inference.generate import suppressed_tokens

logger = logging.getLogger(__name__)

TOLERANCE = 0.1  # nats: largest mean difference of log-probabilities that other kernels and bfloat16 explain


@dataclass(frozen=True)
class EngineOutput:
    """One engine's output for a sample: tokens of the prompt, generated tokens, and their log-probabilities (nats)."""

    prompt_tokens: int
    written: tuple[int, ...]
    logps: tuple[float, ...]


def no_image_tokens(args: Any, processor: Any) -> None:
    """Keep vLLM in this process from generating image tokens, for which it would expect an image.

    TRL does so for transformers. A vLLM server is not covered: its settings are sent as JSON, whose keys are strings.
    """
    ids = suppressed_tokens(processor)
    if args.use_vllm and args.vllm_mode == "colocate" and ids:
        args.generation_kwargs = {"logit_bias": {number: -100.0 for number in ids}, **(args.generation_kwargs or {})}


def compare(rollout: EngineOutput, reread: EngineOutput, tolerance: float = TOLERANCE) -> float:
    """Return the mean difference of the generated tokens' log-probabilities, in nats; at most `tolerance`.

    `rollout` is from the engine that generates, `reread` is the same answer scored by the trained model.

    Raises:
        FieldmarkError: different numbers of prompt tokens, different tokens, or a larger difference.
    """
    advice = "do not train on its answers: set use_vllm: false, or use versions of TRL and vLLM without this bug"
    if rollout.prompt_tokens != reread.prompt_tokens:
        raise FieldmarkError(
            f"the rollout engine reads {rollout.prompt_tokens} tokens where the model reads {reread.prompt_tokens} "
            f"(are the image's tokens expanded twice?); {advice}"
        )
    if rollout.written != reread.written or not rollout.written:
        raise FieldmarkError(f"the rollout engine generated other tokens than were scored, or none; {advice}")
    pairs = list(zip(rollout.logps, reread.logps, strict=True))
    apart = sum(abs(one - other) for one, other in pairs) / len(pairs)
    if not apart <= tolerance:  # NaN too
        worst = max(range(len(pairs)), key=lambda k: abs(pairs[k][0] - pairs[k][1]))
        raise FieldmarkError(
            f"the rollout engine and the model disagree on how likely the same {len(pairs)} tokens are: by {apart:.3g} "
            f"nats on average (at most {tolerance:g} is rounding), worst at token {worst + 1}: {pairs[worst][0]:.3g} "
            f"against {pairs[worst][1]:.3g}; {advice}"
        )
    return apart


def compare_images(prompt: Sequence[int], image_token: int, features: dict[str, Any]) -> None:
    """Compare a prompt's image tokens with those that a vLLM server makes of its images.

    Args:
        prompt: token ids, with expanded images.
        image_token: id of the token that an image is expanded to.
        features: the server's answer to the images alone, as TRL gets it (`VLLMClient.image_features`).

    Raises:
        FieldmarkError: different numbers of images, or of an image's tokens.
    """
    sent = [len(list(run)) for token, run in groupby(prompt) if token == image_token]
    made = [place["length"] for place in features["mm_placeholders"]["image"]]
    if sent != made:
        raise FieldmarkError(
            f"the vLLM server makes {made} tokens of the images for which the prompt has {sent}: it resizes "
            "images to another budget; start it on a folder that Fieldmark saved, or with the budget's size in its "
            "--mm-processor-kwargs, or set use_vllm: false"
        )


def read(
    model: Any, processor: Any, row: dict[str, Any], written: Sequence[int], temperature: float = 1.0
) -> EngineOutput:
    """Score a given answer to a row's prompt with the trained model, at the temperature of the rollouts."""
    inputs = _encode(model, processor, row)
    answer_1L = torch.tensor([list(written)], device=model.device)
    count = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer_1L], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer_1L)], 1)
    with torch.no_grad():
        logits_LV = model(**inputs).logits[0, count - 1 : -1].float() / temperature
    logps_L = logits_LV.log_softmax(-1).gather(-1, answer_1L[0, :, None])[:, 0]
    return EngineOutput(count, tuple(written), tuple(logps_L.tolist()))


class RolloutCheck(TrainerCallback):
    """Compares vLLM and the model on the first row before the first step."""

    def __init__(self, trainer: Any, row: dict[str, Any]) -> None:
        self.trainer, self.row = trainer, row

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compare; every process takes part, since weights may be sharded and vLLM shared."""
        trainer = self.trainer
        messages = prepare_multimodal_messages(self.row["prompt"], images=self.row["images"])
        ids, images, _fields = trainer._tokenize_prompts([messages])
        trainer._pending = None  # this was not a rollout of a step
        engine, image_token = trainer.vllm_generation, trainer.processing_class.image_token_id
        if images and engine.mode == "server" and trainer.accelerator.is_main_process:  # only it talks to the server
            compare_images(ids[0], image_token, engine.vllm_client.image_features(images)[0])
        engine.sync_weights()
        seen, written, logps, _names = engine.generate(prompts=ids, images=images, num_generations=1)
        rollout = EngineOutput(len(seen[0]), tuple(written[0]), tuple(one[0] for one in logps[0]))
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            reread = read(model, trainer.processing_class, self.row, rollout.written, trainer.temperature)
        apart = compare(rollout, reread)
        logger.info(
            "vLLM reads the same %d tokens; log-probabilities differ by %.2g nats", rollout.prompt_tokens, apart
        )


def _encode(model: Any, processor: Any, row: dict[str, Any]) -> dict[str, Any]:
    text = processor.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[row["images"]], return_tensors="pt")
    return {name: value.to(model.device) for name, value in inputs.items()}
