"""What `make fuzz` does at length, in brief; what it found; and limits that no input gets around."""

from __future__ import annotations

import ast
import io
import json
import pickle
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllm import records
from mllm.boxes import Frame
from mllm.data import caption_stats, sources
from mllm.errors import FieldmarkError, ImageError
from mllm.io import safe_pickle, strict_json
from mllm.io.images import image_size, open_image
from mllm.models import families
from mllm.prompting import answers
from tests.support.fuzz_targets import JSON, TAGS, Target, targets
from tests.support.fuzzed import _mutate, guarded

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.ci
def test_seeds_are_read_and_their_mutations_end_well(every: dict[str, Target]) -> None:
    draw = random.Random(0)
    for name, target in every.items():
        for seed in target.seeds:
            if name not in ("wire.read",):  # its image is cut off on purpose
                target.run(seed)
        run = guarded(target.run)
        for _ in range(15):
            data = bytearray(draw.choice(target.seeds))
            for _ in range(draw.randint(1, 6)):
                _mutate(data, target, list(target.seeds), draw)
            run(bytes(data[:4096]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_any_json_is_read_or_refused(value: Any, every: dict[str, Target]) -> None:
    data = json.dumps(value).encode()
    for target in every.values():
        if target.words is JSON:
            guarded(target.run)(data)


@settings(max_examples=60)
@given(
    text=st.lists(st.text(max_size=20) | st.sampled_from([word.decode() for word in TAGS]), max_size=12).map("".join)
)
def test_any_text_is_an_answer(text: str) -> None:
    for name in families.names():
        family = families.load(name)
        found = answers.parse(text, family, family.frame(Frame(64, 64), family.budget))
        assert found.problem is None or found.problem in answers.PROBLEMS


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\ud800", '"', b"\xff"],
    ids=["nested lists", "nested objects", "a long number", "half a pair", "open", "not UTF-8"],
)
def test_hostile_json_is_broken_json(text: Any) -> None:
    with pytest.raises(json.JSONDecodeError):
        strict_json.loads(text)


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims to be as large as one wants."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (2_000_000_000, 1), (12_000, 12_000)])
def test_an_image_that_claims_to_be_huge_is_not_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(*size))
    for read in (open_image, image_size):
        with pytest.raises(ImageError):
            read(tmp_path / "bomb.png")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/fieldmark-was-here"),))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({1: Evil()}), pickle.dumps({1: Path()}), b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04\x95", b"",
        pickle.dumps({1: {2, 3}, 2: range(3)}), b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"}\x94(K\x01re a\n.",
    ],
    ids=["a call", "a class", "os.system", "cut off", "empty", "a range", "exabytes", "room for two billion"],
)  # fmt: skip
def test_a_pickle_runs_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "captions.pkl").write_bytes(data)
    with pytest.raises(safe_pickle.PickleError, match="captions.pkl"):
        caption_stats.read_captions(tmp_path / "captions.pkl")
    assert not Path("/tmp/fieldmark-was-here").exists()


def test_published_predictions_are_read(tmp_path: Path) -> None:
    (tmp_path / "captions.pkl").write_bytes(pickle.dumps({139: "a red bird", 285: "a blue one"}))
    assert caption_stats.read_captions(tmp_path / "captions.pkl") == {"139": "a red bird", "285": "a blue one"}
    shared: list[Any] = ["x"]
    for _ in range(60):
        shared = [shared, shared]  # 2 ** 60 texts when written out
    assert safe_pickle.read(io.BytesIO(pickle.dumps(shared)), "x")


@pytest.mark.ci
def test_absurd_numbers_of_boxes(tmp_path: Path, every: dict[str, Target]) -> None:
    """In model text: read in linear time. In a source: refused."""
    family = families.load("qwen2_vl")
    found = answers.parse("<answer>" + "(1,2),(3,4)" * 50_000 + "</answer>", family, Frame(1000, 1000))
    assert len(found.boxes) == 50_000
    from PIL import Image

    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    rows = "".join(f"a.png,robin,0,0,{1 + k / 1e6},9\n" for k in range(2_001))
    (tmp_path / "p.csv").write_text(f"image,entity,x1,y1,x2,y2\n{rows}")
    with pytest.raises(sources.SourceError, match="2001 boxes; at most 2000"):
        list(sources.photos("csv", sources.PhotoRequest(tmp_path / "p.csv", domain="bird")))


def test_a_name_too_long_for_a_file_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such image"):
        open_image(tmp_path / ("x" * 5000))


def test_weights_are_safetensors_and_code_of_checkpoints_is_not_run(pocket_folder: Path, tmp_path: Path) -> None:
    """A checkpoint with a pickle instead of safetensors, or with code of its own, is refused; nothing in it runs."""
    import shutil

    from mllm.models import checkpoint

    folder = tmp_path / "pickled"
    shutil.copytree(pocket_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(FieldmarkError, match="safetensors"):
        checkpoint.load(folder)
    own = tmp_path / "own"
    shutil.copytree(pocket_folder, own)
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "mine.py").write_text("raise SystemExit('the code of a checkpoint was run')")
    with pytest.raises(FieldmarkError, match="own"):
        checkpoint.open_checkpoint(own)
    assert not Path("/tmp/fieldmark-was-here").exists()


def test_a_link_out_of_a_folder_of_photos_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "root" / "robin").mkdir(parents=True)
    for name in ("private.png", "root/robin/a.png"):
        Image.new("RGB", (40, 20)).save(tmp_path / name)
    request = sources.PhotoRequest(tmp_path / "root", domain="bird", whole_image_boxes=True)
    (tmp_path / "root" / "robin" / "b.png").symlink_to("a.png")
    assert [photo.id for photo in sources.photos("image_folder", request)] == ["robin/a.png", "robin/b.png"]
    (tmp_path / "root" / "robin" / "c.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(sources.SourceError, match="c.png: a link that leads out of"):
        list(sources.photos("image_folder", request))


@pytest.mark.ci
def test_nothing_unpacks_archives_loads_pickles_or_runs_a_checkpoints_code(root: Path) -> None:
    """Read off the syntax trees: the one reader of pickles is `mllm.io.safe_pickle`; two sources look into archives."""
    allowed = {"safe_pickle.py": {"pickle"}, "darwin_core.py": {"zipfile"}, "webdataset.py": {"tarfile"}}
    for path in [
        file for folder in ("mllm", "data_synth", "recipes", "eval") for file in (root / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            risky = {"pickle", "zipfile", "tarfile", "marshal", "shelve", "joblib", "dill"} & set(names)
            assert risky <= allowed.get(path.name, set()), f"{path}: {risky}"
            if not isinstance(node, ast.Call):
                continue
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            assert given.get("trust_remote_code") is not True and given.get("allow_pickle") is not True, path
            called = ast.unparse(node.func)
            assert called not in ("shutil.unpack_archive", "np.load"), path
            assert called.rpartition(".")[2] not in ("extract", "extractall"), path
            assert called != "torch.load" or given.get("weights_only") is True, path


def test_records_of_a_fuzzed_line_say_where(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_bytes(b'{"schema": "fieldmark.sample/1", "id": ' + b"[" * 5000)
    with pytest.raises(FieldmarkError, match="s.jsonl:1: .*broken JSON"):
        records.load_samples(tmp_path / "s.jsonl")
