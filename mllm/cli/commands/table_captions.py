"""Compare ways to train captions, three seeds each; under an hour on two cores.

Base; MLE on sparse and on boosted captions (VCB); plain self-retrieval and BagCurri from each, the latter also with an
anchor (claims held against known marks); CLIP reward, with and without grammar; and, without a model, captions that
name every true mark: their score is the best that the judge allows. The starts' learning rate is not searched for.
The encoder that scores the test bags was not used as a reward. Intervals resample families of look-alikes and seeds.
The same command continues a stopped run.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from mllm.cli.commands.demo import BAG_SIZES, LEVEL, judged
from mllm.cli.experiments.ablation import Ablation, AblationRun, AblationTask
from mllm.cli.experiments.arms import SEEDS, Arm, Sizes
from mllm.cli.experiments.pipeline import Stage, answers, counts
from mllm.cli.programs import Range

SPARSE, VCB = "MLE sparse", "MLE VCB"
PLAIN, CURRICULUM, CLIP = "self-retrieval", "BagCurri", "CLIP reward"
ANCHORED, FLUENT = "BagCurri and anchor", "CLIP reward and grammar"
TRUTH = "every true mark"
SIZES = Sizes(
    train=1000,
    validation=140,
    test=210,
    sft_steps=200,
    rl_steps=32,
    prompts_per_step=14,
    max_new_tokens=56,
    sft_rates=("5e-4",),
)


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/captions")
    """output folder"""
    seeds: Annotated[int, Range(1, 9)] = len(SEEDS)
    """number of seeds; fewer for a first look"""


def command(options: Options) -> None:
    sizes = replace(SIZES, seeds=tuple(range(options.seeds)))
    print(AblationRun(options.out, ablation(sizes), print).run())


class CaptionTask(AblationTask):
    """Captions of pocket creatures among look-alikes, measured by retrieval, marks and length."""

    criterion = "eval/r1"
    columns = (*(f"R@1 of {size}" for size in BAG_SIZES), "marks right", "marks named")
    plain_columns = ("words",)
    also_measured = (TRUTH,)
    row_title, pairing = "captions of", "image"
    preface = f"In percent; chance: {', '.join(f'{100 / size:.1f} of {size}' for size in BAG_SIZES)}.\n\n"

    def data(self) -> list[Stage]:
        """Make the same images twice: with captions as people write them, and with boosted ones."""
        sizes = (f"--level={LEVEL}", *counts(self.sizes.train, self.sizes.validation, self.sizes.test))
        return [
            Stage(f"data, {which}", "mllm.data_synth.captions", (f"--out={self._set(which)}", *sizes, *flags), 40)
            for which, flags in (("sparse", ()), ("vcb", ("--strategy=holistic",)))
        ]

    def _set(self, which: str) -> Path:
        return self.out / "data" / which

    def files(self, arm: Arm) -> Path:
        """Return the captions that an arm, or its start, was trained on."""
        return self._set("sparse" if SPARSE in (arm.name, arm.start) else "vcb")

    def measurements(self, models: Sequence[tuple[str, int, str, str]]) -> Iterator[list[Stage]]:
        """Let every model caption the test images, then ask the judge; of true captions too."""
        data = self._set("vcb")
        flags = ("--max-new-tokens", self.sizes.max_new_tokens, "--batch-size", 60)
        test = data / "test.jsonl"
        yield [
            answers(f"captions of {arm}, seed {seed}", "captions", model, test, self.folder(arm, seed), flags, 20)
            for arm, seed, _, model in models
        ]
        self._write_true_captions(test)
        names = [*((arm, seed) for arm, seed, _, _ in models), (TRUTH, 0)]
        yield [judged(f"judgement of {arm}, seed {seed}", data, self.folder(arm, seed)) for arm, seed in names]

    def _write_true_captions(self, file: Path) -> None:
        from mllm.evaluation import runs
        from mllm.io.files import locked
        from mllm.models import families
        from mllm.pocket.captions import rich
        from mllm.records import Answer, Completion, load_samples

        folder, samples = self.folder(TRUTH, 0), load_samples(file)
        convention = asdict(families.Convention("pocket", "direct", families.load("pocket").budget))
        with locked(folder):
            done = runs.begin(folder, {"model": TRUTH, "convention": convention}, samples, file.parent)
            for sample in samples:
                if sample.id not in done:
                    text = rich(sample.domain, [thing.marks for thing in sample.things])
                    runs.append(folder, Completion(sample.id, text, Answer(None, None, (), (), None)))

    def values(self, folder: Path) -> dict[str, list[tuple[float, str]]]:
        """Return hits, marks and lengths, by family of look-alikes."""
        from mllm.captions import caption_of, words
        from mllm.evaluation import runs
        from mllm.pocket.captions import judge

        _, samples, rows = runs.read_whole(folder)
        family = {sample.id: sample.bag or sample.id for sample in samples}
        matches = json.loads((folder / "truematch.json").read_text(encoding="utf-8"))["matches"]
        hits = {size: [(row["hit"], family[row["image"]]) for row in matches[str(size)]] for size in BAG_SIZES}
        found = {f"R@1 of {size}": pairs for size, pairs in hits.items()}
        texts = [(caption_of(rows[one.id]), one) for one in samples]
        marks = [(judge(text, [thing.marks for thing in one.things]), family[one.id]) for text, one in texts]
        found["marks right"] = [(one.precision, group) for one, group in marks]
        found["marks named"] = [(one.recall, group) for one, group in marks]
        found["words"] = [(float(len(words(text))), family[one.id]) for text, one in texts]
        return found


def ablation(sizes: Sizes = SIZES, bags: tuple[int, ...] = (2, 3, 5, 7)) -> Ablation:
    """Return the experiment; BagCurri divides the steps evenly among bags of these sizes, an epoch each."""
    stage = sizes.rl_steps // len(bags)
    limit = f"--evaluate.max_new_tokens={sizes.max_new_tokens}"
    plain = (
        *sizes.batch_flags,
        f"--limit={sizes.prompts_per_step * stage}",
        f"--evaluate.every={stage}",
        f"--max_completion_length={sizes.max_new_tokens}",
        limit,
    )
    grown = (*plain, f"--bags.schedule={json.dumps([[1, size] for size in bags], separators=(',', ':'))}")
    starts = [
        Arm(name, config, "direct", sizes.sft_steps, sizes.sft_rates, None, (limit,), 130)
        for name, config in ((SPARSE, "captions_sft"), (VCB, "captions_vcb_sft"))
    ]
    rewarded = [
        Arm(f"{name} from {start}", f"captions_{config}", "direct", sizes.rl_steps, sizes.rates, start, flags, 130)
        for name, start, config, flags in (
            (PLAIN, SPARSE, "self_retrieval", plain),
            (PLAIN, VCB, "self_retrieval", plain),
            (CURRICULUM, SPARSE, "bagcurri_vcb", grown),
            (CURRICULUM, VCB, "bagcurri_vcb", grown),
            (ANCHORED, VCB, "bagcurri_anchor", grown),
            (CLIP, VCB, "clip_reward", plain),
            (FLUENT, VCB, "clip_grammar", plain),
        )
    ]
    comparisons = (
        (SPARSE, VCB),
        (SPARSE, f"{PLAIN} from {SPARSE}"),
        (SPARSE, f"{CURRICULUM} from {SPARSE}"),
        (VCB, f"{PLAIN} from {VCB}"),
        (VCB, f"{CURRICULUM} from {VCB}"),
        (f"{PLAIN} from {VCB}", f"{CURRICULUM} from {VCB}"),
        (f"{CURRICULUM} from {SPARSE}", f"{CURRICULUM} from {VCB}"),
        (VCB, f"{ANCHORED} from {VCB}"),
        (f"{PLAIN} from {VCB}", f"{ANCHORED} from {VCB}"),
        (f"{CURRICULUM} from {VCB}", f"{ANCHORED} from {VCB}"),
        (VCB, f"{CLIP} from {VCB}"),
        (VCB, f"{FLUENT} from {VCB}"),
        (f"{CLIP} from {VCB}", f"{FLUENT} from {VCB}"),
    )
    return Ablation(CaptionTask, sizes, (*starts, *rewarded), comparisons)
