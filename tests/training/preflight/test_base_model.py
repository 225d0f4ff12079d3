"""The base of a run as preflight finds it: folders as they are downloaded, adapters on them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mllm.errors import FieldmarkError
from mllm.models import families
from mllm.training import recipe
from mllm.training.preflight import base_model

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
FAMILY = ("--family", "qwen3_vl")


@pytest.fixture
def downloaded(pocket_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint as it comes from the Hub: no fieldmark.json, and the weights are still on their way."""
    folder = tmp_path / "Qwen3-VL"
    shutil.copytree(pocket_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / families.CONVENTION_FILE).unlink()
    return folder


def find(name: str, *flags: str | Path) -> tuple[base_model.BaseModel, base_model.Finding]:
    read = recipe.read(RECIPES / name, [str(flag) for flag in flags], processes=8)
    model = base_model.find_model(read)
    return model, base_model.open_processor(read.settings, model)[1]


@pytest.mark.parametrize(
    ("name", "flags"),
    [("kvg_karl_qwen3vl_8b_sft.yaml", ()), ("kvg_karl_qwen3vl_8b.yaml", FAMILY), ("one_card_qlora_sft.yaml", ())],
)
def test_a_downloaded_folder_is_opened_by_the_family_that_is_named(
    name: str, flags: tuple[str, ...], downloaded: Path
) -> None:
    model, tokenizer = find(name, "--model", downloaded, *flags)
    assert (model.name, model.family.name) == (str(downloaded), "qwen3_vl")
    assert tokenizer.state == "good"


def test_an_adapter_on_a_downloaded_folder_knows_its_family(downloaded: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": str(downloaded), "r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    family = families.load("qwen3_vl")
    families.write_convention(adapter, families.Convention("qwen3_vl", "think", family.budget))
    model, tokenizer = find("rl.yaml", "--model", adapter)
    assert model.family is family and model.lora is not None and model.lora.r == 4 and tokenizer.state == "good"


def test_what_cannot_be_opened_is_one_sentence(downloaded: Path) -> None:
    with pytest.raises(FieldmarkError, match=r"no fieldmark.json .*Set `family` for model type qwen3_vl: qwen3_vl$"):
        find("sft.yaml", "--model", downloaded)
    config = json.loads((downloaded / "config.json").read_text())
    chat = {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "code.InternVLChatConfig"}}
    for changed, said in (
        (config | {"model_type": "internvl"}, "is for model type qwen3_vl, but the model's is internvl"),
        (chat, "it needs code of its own, which Fieldmark does not run; name a checkpoint of"),
        ({"model_type": "florence"}, "not a readable checkpoint of a known architecture"),
    ):
        (downloaded / "config.json").write_text(json.dumps(changed))
        with pytest.raises(FieldmarkError, match=said) as caught:
            find("sft.yaml", "--model", downloaded, *FAMILY)
        assert "\n" not in str(caught.value)
