"""Settings that a user can look up: every field says what it is."""

from __future__ import annotations

import pytest

from mllm import config
from mllm.config import Settings


@pytest.mark.parametrize("section", [Settings, config.Lora, config.Evaluate])
def test_every_field_is_documented(section: type[config.Section]) -> None:
    assert not [name for name, field in section.model_fields.items() if not field.description]
