"""What the pages name exists: YAML keys, flags, settings, files; lists are up to date; the site builds."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from tests.support.pages import PAGES, ROOT, Block, blocks_of, flags_of, made_on, name_of, prose_of, swaps_of

KINDS = ("recipe", "fieldmark", "cards", "domain", "teacher")
YAMLS = [block for page in PAGES for block in blocks_of(page) if block.language == "yaml"]
LOGS = {ROOT / "docs" / "log.md"}  # dated: it tells of what was, and of what is gone since
DOCS = [page for page in PAGES if page not in LOGS]
OTHERS_FLAGS = {
    "--help", "--version", "--config_file", "--num_processes", "--reasoning-parser", "--logprobs-mode",
    "--enable-scale-out",
}  # fmt: skip
"""Flags of every program, of accelerate and of vLLM, as pages name them in code font."""


@cache
def trl_fields() -> frozenset[str]:
    from trl import GRPOConfig, SFTConfig

    return frozenset(item.name for kind in (SFTConfig, GRPOConfig) for item in fields(kind))


def sections(kind: type[BaseModel]) -> Iterator[str]:
    """Every key of a settings class and of the classes in it."""
    for name, field in kind.model_fields.items():
        yield name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from sections(inner)


@cache
def flags() -> frozenset[str]:
    """The flags of all programs, settings of the recipes included."""
    from mllm.cli import commands
    from mllm.config import Settings

    programs = [
        f"{folder}.{path.stem}"
        for folder in ("data_synth", "eval", "bench")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.stem != "__init__"
    ]
    makers = ("recipes.pretrain", "recipes.pretrain_clip", "recipes.pretrain_grammar")
    known = {flag for name in (*programs, *makers) for flag in flags_of(name)}
    known |= {flag for name in commands.names() for flag in flags_of("mllm.cli", name.replace("_", "-"))}
    return frozenset(known | {f"--{name}" for name in {*trl_fields(), *Settings.model_fields, "config"}})


@cache
def keys() -> frozenset[str]:
    """Everything that may stand before a colon in a YAML of ours."""
    from mllm import rewards
    from mllm.config import SECTION, Settings
    from mllm.knowledge.card_files import Card, Mark
    from mllm.records import Photo, Sample
    from mllm.synthesis.teachers import local, openai

    known = {
        SECTION,
        "weight",
        "rewards",
        "solution",
        *(item.name for kind in (Sample, Photo, Mark, Card) for item in fields(kind)),
        *sections(Settings),
        *trl_fields(),
        *rewards.names(),
    }
    known |= {item.name for name in rewards.names() for item in fields(rewards_class(name))}
    return frozenset(known | set(openai.Config.model_fields) | set(local.Config.model_fields))


def rewards_class(name: str) -> Any:
    from importlib import import_module

    return import_module(f"mllm.rewards.{name}").Reward


@cache
def source() -> str:
    """The text of everything that a name in code font may come from."""
    places = ("mllm", "data_synth", "recipes", "eval", "bench", "tests", "accelerate_configs")
    files = [path for place in places for path in (ROOT / place).rglob("*") if path.suffix in (".py", ".yaml")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def codes(page: Path) -> Iterator[tuple[str, str]]:
    """What stands in code font in a page's running text, and where."""
    for number, text in prose_of(page):
        for code in re.findall(r"`([^`]+)`", text):
            yield f"{name_of(page)}:{number}", code


@pytest.mark.parametrize("block", YAMLS, ids=str)
def test_a_yaml_block_is_read_by_what_it_is_for(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next((word for word in block.words if word in KINDS), None)
    assert kind, f"{block}: say what it is: ```yaml {' | '.join(KINDS)}"
    file = tmp_path / "page.yaml"
    file.write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    if kind == "cards":
        from mllm.knowledge.cards import load_cards

        assert load_cards(file)
    elif kind == "domain":
        from mllm.knowledge import domains

        assert domains.read(file)
    elif kind == "teacher":
        from mllm.synthesis.teachers import openai

        openai.Config.model_validate(yaml.safe_load(block.text))
    else:
        check_recipe(file, kind)


def check_recipe(file: Path, kind: str) -> None:
    """Let the recipes' own reader take a whole configuration, or the inside of its `fieldmark:` section."""
    from trl import GRPOConfig, SFTConfig

    from mllm import rewards
    from mllm.knowledge.mastery import Entry, MasteryTable
    from mllm.training import arguments

    if kind == "fieldmark":
        file.write_text(yaml.safe_dump({"fieldmark": yaml.safe_load(file.read_text())}))
    text = file.read_text()
    config = GRPOConfig if "rewards:" in text or "num_generations" in text else SFTConfig
    settings, _ = arguments.read(["--config", str(file), "--bf16", "False", "--use_cpu", "True"], file, config)
    for table in settings.tables:
        MasteryTable({"wren": Entry("mostly correct", 1, 2)}).save(table)
    assert rewards.load_all(settings.rewards) is not None


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_what_stands_in_code_font_exists(page: Path) -> None:
    """Flags, YAML keys, dotted and underscored names, files of the tree."""
    for where, code in codes(page):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert flag in flags() | OTHERS_FLAGS, f"{where}: no program has {flag}"
        if match := re.fullmatch(r"([a-z_][\w.]*):(?: .*)?", code):
            wrong = set(match[1].split(".")) - keys()
            assert not wrong, f"{where}: no setting {wrong} in `{code}`"
        elif re.fullmatch(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+", code):
            assert code in trl_fields() or code in source(), f"{where}: nothing is called `{code}`"
        elif re.fullmatch(r"(?:mllm|data_synth|recipes|eval|bench|tests|docs|accelerate_configs)/[\w./-]+\.\w+", code):
            example = Path(code).stem == "x" or code in made_on(name_of(page))  # CONTRIBUTING: write mllm/rewards/x.py
            assert example or (ROOT / code).exists(), f"{where}: no {code}"


def test_the_check_would_find_what_is_gone() -> None:
    """None of this passes because everything does."""
    assert "--descriptions" in flags() and "--lora" in flags() and "--no-such-flag" not in flags()
    assert {"tau", "refresh", "num_generations", "price_in"} <= keys() and "no_such_key" not in keys()


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_lines_are_short(page: Path) -> None:
    """Prose is wrapped at 120 characters; tables, images and blocks are not."""
    long = [number for number, text in prose_of(page) if len(text) > 120 and not text.lstrip().startswith(("|", "!["))]
    assert not long, f"{name_of(page)}: lines {long} are longer than 120 characters"


def test_the_list_of_files_is_up_to_date() -> None:
    """docs/architecture.md holds what .ci/tree.py writes, and each file has a phrase."""
    tree = runpy.run_path(str(ROOT / ".ci" / "tree.py"))
    text = tree["PAGE"].read_text(encoding="utf-8")
    assert tree["page"](text) == text, "docs/architecture.md is out of date: run `make tree`"
    silent = re.findall(r"^- `(.+)`:\s*$", text, re.MULTILINE)
    assert not silent, f"these say nothing of themselves: {silent}"


def test_every_package_is_in_the_list_of_files() -> None:
    tree = runpy.run_path(str(ROOT / ".ci" / "tree.py"))
    packages = {f"mllm/{init.parent.name}" for init in (ROOT / "mllm").glob("*/__init__.py")}
    assert packages == {folder for folder in tree["FOLDERS"] if folder.startswith("mllm/")}


def test_the_citation_names_this_version() -> None:
    import mllm

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mllm.__version__ and citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The Fieldmark developers"}]


def test_the_workflow_starts_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["test"]["steps"]
    assert any(step.get("run") == ".ci/run" for step in steps)
    assert any(step.get("with", {}).get("python-version") == "3.11" for step in steps)


def test_swaps_are_told_on_the_page_that_uses_them() -> None:
    for page in PAGES:
        commands = "\n".join(block.text for block in blocks_of(page) if block.language == "bash")
        for before, _ in swaps_of(page):
            assert before in commands, f"{name_of(page)}: no command holds {before!r}"


@pytest.mark.ci
def test_the_site_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strictly (every link and anchor leads somewhere), and nothing on its pages is fetched from elsewhere."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) + 1  # and the one for addresses that lead nowhere
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", text)
        fetched += [tag for tag in re.findall(r"<link [^>]*>", text) if "stylesheet" in tag or "preload" in tag]
        assert not [what for what in fetched if "//" in what], page
        assert "](" not in re.sub(r"<(pre|code)\b.*?</\1>", "", text, flags=re.DOTALL), f"{page}: a link was not read"
