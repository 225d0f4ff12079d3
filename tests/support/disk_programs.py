"""The commands that tests/support/full_disk.py runs: every program that writes, as small as it goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mllm.data.bags import Bag
from mllm.io.jsonl import write_jsonl
from mllm.records import load_samples
from tests.evaluation.report.test_report import benchmark
from tests.recipes import killed
from tests.support.scenes import make_captions, make_data
from tests.support.synthesis import make

FIELDMARK = "mllm/cli/__main__.py"
BIRDS = ("--source=pocket", "--domain=bird", "--photos-per-entity=3")
ASKED = ("--max-new-tokens=2", "--batch-size=2")
SMALL_CLIP = ("--which=scorer", "--bags=9", "--steps=2", "--batch-size=2", "--checks=1")


def programs(inputs: Path, out: Path, names: Sequence[str] = ()) -> dict[str, list[str]]:
    """Make what the programs read, and return their commands by name: all, or those in `names`."""
    found = without_models(inputs, out) | with_models(inputs, out)
    return {name: [str(word) for word in found[name]] for name in names or found}


def without_models(inputs: Path, out: Path) -> dict[str, list[object]]:
    """Return data programs whose teacher is the pocket world, and commands that write pages and other formats."""
    data = inputs / "data"
    make(data, *BIRDS, "--train=6", "--validation=2", "--test=4")
    runs = [
        f"{name}={benchmark(inputs / name, ['left', answer], model=name)}"
        for name, answer in (("a", "left"), ("b", "right"))
    ]
    card = inputs / "cards.json"
    card.write_text(json.dumps({"wren": ["short tail"], "owl": ["big eyes"]}))
    fieldmark = {
        "sharegpt": ("convert", data / "train.jsonl", out / "rows.json", "--to=sharegpt"),
        "swift": ("convert", data / "train.jsonl", out / "rows.jsonl", "--to=swift"),
        "vlm_r1": ("convert", data / "train.jsonl", out / "rows.jsonl", "--to=vlm_r1"),
        "samples": ("convert", data / "train.jsonl", out / "rows.jsonl"),
        "push": ("push", data, "me/birds", "--dry-run", "--licence=cc0-1.0", "--out", out),
        "report": ("report", *(word for run in runs for word in ("--runs", run)), "--out", out / "report.html"),
        "compare": ("compare", *runs, "--out", out / "compare.html"),
        "inspect": ("inspect", data / "train.jsonl", "--html", out / "page.html"),
    }
    return {
        "grounding": ["data_synth/grounding.py", *BIRDS, "--train=6", "--validation=2", "--test=4", "--out", out],
        "knowledge": ["data_synth/knowledge.py", *BIRDS, "--teacher=pocket", "--out", out],
        "recall": ["data_synth/recall.py", "--knowledge", card, "--out", out / "recall.jsonl"],
        "captions": ["data_synth/captions.py", "--train=8", "--validation=7", "--test=7", "--family=4", "--out", out],
        **{name: [FIELDMARK, *words] for name, words in fieldmark.items()},
    }


def with_models(inputs: Path, out: Path) -> dict[str, list[object]]:
    """Return benchmarks, trainings, and what else asks or writes a model."""
    samples, _ = make_data(inputs / "scenes", train=4, validation=1)
    captions = make_captions(inputs / "captions", "train", families=2, size=3)
    rows = load_samples(captions)
    table = {row.id: row.captions[0] for row in rows} | {f"s/{k}": "red" for k in range(10)} | {"a": "a dog"}
    files = {
        "captions.json": json.dumps(table),
        "imagecode.json": json.dumps({"s": {"3": "red"}}),
        "fine.csv": "image,caption,background,object,relation\na.jpg,a dog,grass,dog,dog on grass\n",
        "ref.json": json.dumps([{"image": "s/0.png", "problem": "the cat", "solution": [0, 0, 9, 9]}]),
    }
    for name, text in files.items():
        (inputs / name).write_text(text)
    for folder, number in [("s", k) for k in range(10)] + [(f"kinds/{kind}", k) for kind in "wxyz" for k in range(2)]:
        (inputs / folder).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 9 * number + 9).save(inputs / folder / f"{number}.png")
    write_jsonl(inputs / "bags.jsonl", [Bag("0", tuple(row.id for row in rows[:3]))])
    judged = ["--captions", inputs / "captions.json", "--out", out / "scores.json"]
    cached = ["--cache", out / "cache"]
    asked = ["--model=pocket", *ASKED, "--out", out]
    recipes = {
        name: [f"recipes/{program}.py", *flags, "--out" if program == "pretrain" else "--output_dir", out]
        for name, (program, *flags) in killed.recipes(inputs / "recipes").items()
    }
    return {
        "kvg": ["eval/kvg_bench.py", "--samples", samples, *asked],
        "mastery": ["eval/mastery.py", "--samples", samples, "--per-entity=1", *asked],
        "refcoco": ["eval/refcoco.py", "--annotations", inputs / "ref.json", *asked],
        "fgvr": ["eval/fgvr.py", "--input", inputs / "kinds", "--domain=bird", *asked],
        "captioner": ["eval/captions.py", "--samples", captions, *asked],
        "truematch": ["eval/truematch.py", *judged, "--samples", captions, "--bags", inputs / "bags.jsonl", *cached],
        "rd": ["eval/random_distractors.py", *judged, "--samples", captions, "--size=3", *cached],
        "imagecode": ["eval/imagecode.py", "--data", inputs / "imagecode.json", "--images", inputs, *judged, *cached],
        "finecapeval": ["eval/finecapeval.py", "--data", inputs / "fine.csv", *judged],
        "mine": ["data_synth/bags.py", "--samples", captions, "--sizes=3", "--lower=-1", "--out", out, *cached],
        "filter": ["data_synth/filter.py", "--samples", samples, "--attempts=2", "--least=0", "--most=2", *asked],
        "merge": [FIELDMARK, "merge", "pocket", out],
        **recipes,
        "pretrain_clip": ["recipes/pretrain_clip.py", *SMALL_CLIP, "--out", out],
        "pretrain_grammar": [
            "recipes/pretrain_grammar.py",
            "--captions",
            captions,
            "--held=2",
            "--steps=2",
            "--out",
            out,
        ],
    }
