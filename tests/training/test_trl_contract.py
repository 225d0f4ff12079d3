"""What mllm/training/grpo/trainer.py stands on in TRL. A new TRL fails here first, and says what to read again."""

from __future__ import annotations

import hashlib
import inspect

import pytest
import trl
from trl import GRPOTrainer
from trl.trainer import utils

from mllm.training.grpo.trainer import TRL_INTERNALS, TRL_TESTED, PrefixGRPOTrainer

# Overridden methods, by a hash of their source in the tested version. `_prepare_inputs` is rewritten without its
# shuffle; the others are called through super(), and their callers must go on using them as they do.
SOURCES = {
    "_compute_loss": "80295546bbdb",
    "_generate_and_score_completions": "1fa48922792d",
    "_generate": "2a27fdf8f5e6",
    "_generate_single_turn": "e0f02e4fc094",
    "_get_per_token_logps_and_entropies": "ea73c3909275",
    "_prepare_inputs": "f824e7fb0714",
    "_tokenize_prompts": "d2d27f7c9bfd",
}
HELPERS = {
    "add_fused_lm_head": "422d009f04b6",
    "split_pixel_values_by_grid": "3aca66e33a79",
    "split_tensor_dict": "b61a5760a03e",
    "unsplit_pixel_values_by_grid": "9d31b407fc5f",
}


def digest(function: object) -> str:
    return hashlib.sha256(inspect.getsource(inspect.unwrap(function)).encode()).hexdigest()[:12]  # pyright: ignore


def test_this_trl_was_tested() -> None:
    assert trl.__version__.startswith(f"{TRL_TESTED}."), (
        f"TRL {trl.__version__} is new here: read the methods of mllm.training.grpo.trainer.TRL_INTERNALS again, run "
        "tests/training/grpo/test_trainer.py against it, then change TRL_TESTED and the hashes of this file"
    )


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_methods_are_those_that_were_read(name: str) -> None:
    found = digest(getattr(GRPOTrainer, name))
    assert found == SOURCES[name], f"GRPOTrainer.{name} has changed ({found}): read it before changing the hash"


@pytest.mark.parametrize("name", sorted(HELPERS))
def test_helpers_are_those_that_were_read(name: str) -> None:
    found = digest(getattr(utils, name))
    assert found == HELPERS[name], f"trl.trainer.utils.{name} has changed ({found}): read it before changing the hash"


def test_all_overrides_are_named_and_keep_their_arguments() -> None:
    ours = {
        name
        for name, value in vars(PrefixGRPOTrainer).items()
        if inspect.isfunction(value) and hasattr(GRPOTrainer, name) and not name.startswith("__")
    }
    assert ours == set(TRL_INTERNALS)
    for name in ours - {"_get_per_token_logps_and_entropies"}:  # takes the images' arguments as keywords
        theirs = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
        assert list(inspect.signature(getattr(PrefixGRPOTrainer, name)).parameters) == theirs
