"""Make the results table of docs/log.md: what reasoning, checked thoughts and GRPO bring; three seeds, hours.

The thoughts are those of a fallible teacher: half jump to a conclusion, some marks are misread. Kept are those that end
on the right thing (as in the papers), or those that pass all checks; the oracle's are the ceiling. CoT-SFT ends after a
fixed number of steps, as in the papers; a further arm keeps its best checkpoint on validation. `curves.md` follows the
answers through GRPO. The same command continues a stopped run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from mllm.cli.experiments.ablation import Ablation, AblationRun, GroundingTask
from mllm.cli.experiments.arms import Arm, Sizes, Variant
from mllm.cli.experiments.pipeline import FALLIBLE, POCKET_DATA, Stage, counts
from mllm.evaluation import runs
from mllm.io.files import atomic_write
from mllm.io.jsonl import read_jsonl
from mllm.io.tables import MISSING, markdown
from mllm.metrics.reasoning import match, read_thought
from mllm.models import families
from mllm.records import Completion, Sample

SIZES = Sizes(train=4000, validation=160, test=600, sft_steps=320, rl_steps=60, sft_rates=("3e-4", "1e-3"),
              rates=("3e-5", "5e-5"))  # fmt: skip
UNCHECKED, CHECKED, ORACLE = "CoT-SFT", "CoT-SFT, checked", "CoT-SFT, oracle"
EARLY = "CoT-SFT, best checkpoint"
CONTINUED, REPAIRED, FROM_CHECKED = "CoT-SFT continued", "GRPO from CoT-SFT", "GRPO from checked"
FROM_EARLY = "GRPO from best checkpoint"
DATA = {
    UNCHECKED: ("data", FALLIBLE),
    CHECKED: ("data-checked", ("--teacher=pocket_fallible", "--max-tries=1000")),
    ORACLE: ("data-oracle", ()),
}
"""Folder and flags of the data of each kind of thought. Photos, questions and test images are the same."""


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/spine")
    """output folder"""


def command(options: Options) -> None:
    run = AblationRun(options.out, ablation(), print)
    print(run.run())
    print(curves_table(run))


class TeacherTask(GroundingTask):
    """Grounding from the thoughts of several teachers; also measures thought length and the marks that it misreads."""

    plain_columns = ("tokens per answer", "blind marks seen right, %")

    def data(self) -> list[Stage]:
        """Return the stages that make each teacher's data, and the questions that keep knowledge alive."""
        sizes = (*counts(self.sizes.train, self.sizes.validation, self.sizes.test), *POCKET_DATA)
        stages = [
            Stage(f"data: {name}", "mllm.data_synth.grounding", ("--out", str(self.out / folder), *sizes, *flags), 90)
            for name, (folder, flags) in DATA.items()
        ]
        cards, recall = str(self.out / "data" / "knowledge.json"), str(self.out / "recall.jsonl")
        return [*stages, Stage("recall", "mllm.data_synth.recall", ("--knowledge", cards, "--out", recall), 5)]

    def files(self, arm: Arm) -> Path:
        """Return the folder of the thoughts that an arm, or the arm it starts from, is trained on."""
        return self.out / DATA.get(arm.start or arm.name, DATA[UNCHECKED])[0]

    def values(self, folder: Path) -> dict[str, list[tuple[float, str]]]:
        """Return the columns' values of each test sample, by image."""
        run = runs.load(folder)
        tokens, blind = self.plain_columns
        shares = [(blind_share(case.sample, case.completion), case.sample.group) for case in run.cases]
        return super().values(folder) | {
            tokens: [(float(case.completion.tokens or 0), case.sample.group) for case in run.cases],
            blind: [(100 * share, group) for share, group in shares if share is not None],
        }


def curves_table(run: AblationRun) -> str:
    """Return how GRPO changes the answers on the validation split, and write it to `curves.md`: means over the seeds.

    `links` is the reward of the same name on the training answers since the row before, where it is only logged.
    """
    rows = [["arm", "step", "Acc@0.5, %", "tokens per answer", "links, %", "blind marks seen right, %"]]
    for arm in (arm for arm in run.ablation.arms if arm.config == "rl"):
        seeds = [_curve(run.training_folder(arm.name, seed), run.task.files(arm)) for seed in run.sizes.seeds]
        for step, *columns in zip(seeds[0], *(seed.values() for seed in seeds), strict=True):
            means = [[value for value in column if value is not None] for column in zip(*columns, strict=True)]
            rows.append([arm.name, str(step), *(f"{mean(one):.1f}" if one else MISSING for one in means)])
    table = f"{markdown(rows)}\n"
    with atomic_write(run.out / "curves.md") as file:
        file.write(table)
    return table


def _curve(folder: Path, data: Path) -> dict[int, tuple[float | None, ...]]:
    """Return accuracy, tokens, links and blind marks at each evaluated step of one training."""
    from mllm.evaluation.report import curves
    from mllm.training.validation import ANSWERS

    samples = {sample.id: sample for sample in read_jsonl(data / "validation.jsonl", Sample)}
    found, links = {}, []
    for row in curves.read_log(folder):
        links += [100 * row["rewards/links/mean"]] if "rewards/links/mean" in row else []
        if "eval/acc" not in row:
            continue
        answers = read_jsonl(folder / ANSWERS / f"step-{int(row['step'])}.jsonl", Completion)
        shares = [blind_share(samples[answer.sample_id], answer) for answer in answers]
        blind = [100 * share for share in shares if share is not None]
        found[int(row["step"])] = (
            100 * row["eval/acc"],
            row["eval/tokens"],
            mean(links) if links else None,
            mean(blind) if blind else None,
        )
        links = []
    return found


def blind_share(sample: Sample, completion: Completion) -> float | None:
    """Return the share of the marks that the fallible teacher misreads which an answer states right, 0..1.

    None for images without such a mark. A thing that the answer does not look at counts as misread.
    """
    from mllm.synthesis.teachers.pocket_fallible import MISREAD

    family = families.load("pocket")
    thought = read_thought(completion.answer.thought, family, family.frame(sample.size, family.budget))
    found = match(sample.things, thought.candidates)
    right: list[bool] = []
    for index, thing in enumerate(sample.things):
        stated: Sequence[str] = thought.candidates[found[index]].marks if index in found else ()
        right += [mark in stated for mark in thing.marks if mark.split()[0] in MISREAD]
    return sum(right) / len(right) if right else None


def ablation(sizes: Sizes = SIZES) -> Ablation:
    """Return the experiment."""
    answered = sizes.rl_steps * sizes.prompts_per_step * sizes.completions
    more = max(1, answered // 16)  # SFT batches of 16: as many samples as GRPO reads answers
    # `links` is logged alone: which step of the reasoning GRPO repairs.
    rl = (*sizes.batch_flags, "--rewards.links.weight=0", f"--evaluate.every={max(1, sizes.rl_steps // 6)}")
    mix = ("--mix={out}/recall.jsonl",)
    whole = (*mix, f"--evaluate.every={sizes.sft_steps}")  # measured at the end only: the last weights are kept
    arms = (
        Arm("SFT", "sft_direct", "direct", sizes.sft_steps, sizes.sft_rates),
        Arm(UNCHECKED, "sft", "think", sizes.sft_steps, sizes.sft_rates, flags=whole),
        Arm(CHECKED, "sft", "think", sizes.sft_steps, sizes.sft_rates, flags=whole),
        Arm(ORACLE, "sft", "think", sizes.sft_steps, sizes.sft_rates, flags=whole),
        Arm(EARLY, "sft", "think", sizes.sft_steps, sizes.sft_rates, flags=mix),
        Arm(CONTINUED, "sft", "think", more, ("1e-4", "3e-4"), UNCHECKED, mix),
        Arm(REPAIRED, "rl", "think", sizes.rl_steps, sizes.rates, UNCHECKED, rl),
        Arm(FROM_CHECKED, "rl", "think", sizes.rl_steps, sizes.rates, CHECKED, rl),
        Arm(FROM_EARLY, "rl", "think", sizes.rl_steps, sizes.rates, EARLY, rl),
    )
    comparisons = (
        ("SFT", UNCHECKED),
        (UNCHECKED, REPAIRED),
        (CONTINUED, REPAIRED),
        (UNCHECKED, CHECKED),
        (CHECKED, FROM_CHECKED),
        (FROM_CHECKED, REPAIRED),
        (EARLY, REPAIRED),
        (EARLY, FROM_EARLY),
        (REPAIRED, ORACLE),
    )
    return Ablation(TeacherTask, sizes, arms, comparisons, REPAIRED, variants(sizes))


def variants(sizes: Sizes) -> tuple[Variant, ...]:
    """Return the settings of GRPO that are screened, all with as many answers."""
    twice = 2 * sizes.prompts_per_step * sizes.completions
    return (
        Variant("as in the recipe"),
        Variant("dynamic sampling", ("--dynamic_sampling=drop",)),
        Variant("KL 0.02", ("--beta=0.02",)),
        Variant("LoRA of rank 16", ("--lora.r=16",), ("5e-4", "1e-3")),
        Variant("entropy bonus 0.005", ("--entropy_coef=0.005",)),
        Variant("temperature 0.7", ("--temperature=0.7",)),
        Variant(
            f"{2 * sizes.prompts_per_step} prompts a step",
            (f"--per_device_train_batch_size={twice}", f"--max_steps={max(1, sizes.rl_steps // 2)}"),
        ),
    )
