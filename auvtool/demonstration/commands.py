"""Which commands the demo runs, with which options: the chain that a user would type, in the small."""

from dataclasses import dataclass
from pathlib import Path

from auvtool.command_chain import Step
from auvtool.demonstration.phantom_data import CLEAN_LIST_NAME, DATASET_NAME, FAULTS, DataPlan
from auvtool.manifest import manifest_path

ALL_CASES = "all"
RANDOM = "random"  # the control: as many cases dropped blindly
CLEAN_CASES = "clean"  # all dirty cases left out, by the answer key: the most that any score could reach


@dataclass(frozen=True)
class DemoPlan:
    """One demo.

    Attributes:
        folder: where everything is put, as the user named it.
        data: what is drawn.
        jobs: commands, or cases of one command, at once.
        extractor: as `extract --extractor` takes it.
        quantifiers: what to rank and filter cases by, as `score --quantifier` takes it; the first one's keep list is
            trained on. "random" is the control of what dropping cases does by itself.
        epochs, iterations: length of a training.
    """

    folder: Path
    data: DataPlan
    jobs: int
    extractor: str = "litemedsam"
    quantifiers: tuple[str, ...] = ("auv", "deviation", RANDOM)
    epochs: int = 10
    iterations: int = 64

    @property
    def dataset(self) -> Path:
        """The raw data set."""
        return self.folder / DATASET_NAME

    @property
    def report(self) -> Path:
        """The page that says what was found, for a browser."""
        return self.folder / "report.html"

    @property
    def reported(self) -> str:
        """The quantifier that the report is about: the one that `score` takes by default, where it was asked for."""
        return "deviation" if "deviation" in self.quantifiers else self.quantifiers[0]

    @property
    def arms(self) -> tuple[str, ...]:
        """The trainings: on all cases, on those that the first quantifier or chance keeps, and on the clean ones."""
        return (ALL_CASES, self.quantifiers[0], RANDOM, CLEAN_CASES)

    @property
    def quantile(self) -> float:
        """The share of clean cases, which only a demo knows: as many cases are dropped as are dirty."""
        return (self.data.n_training - len(FAULTS)) / self.data.n_training

    def scores(self, quantifier: str) -> Path:
        """SCORES table of a quantifier."""
        return self.folder / f"scores_{quantifier}.csv"

    def keep_list(self, name: str) -> Path:
        """KEEP_LIST table of a quantifier, or of the answer key."""
        return self.folder / (CLEAN_LIST_NAME if name == CLEAN_CASES else f"keep_{name}.csv")

    def metrics(self, arm: str) -> Path:
        """METRICS table of a training, on the test cases."""
        return self.folder / f"metrics_{arm}.csv"


def step_groups(plan: DemoPlan) -> list[tuple[str, tuple[Step, ...]]]:
    """The chain: a heading, and the steps under it, which do not depend on one another."""
    return [
        ("A foundation model looks at every training case", (_extract(plan),)),
        ("Scores", tuple(_score(plan, name) for name in plan.quantifiers)),
        ("Keep lists", tuple(_filter(plan, name) for name in plan.quantifiers)),
        (
            "The same small nnU-Net on all cases, on the kept ones, and on two controls",
            tuple(_train(plan, arm) for arm in plan.arms),
        ),
        ("Predictions of the clean test cases", tuple(_predict(plan, arm) for arm in plan.arms)),
        ("Dice", tuple(_eval(plan, arm) for arm in plan.arms)),
        ("A report to read", (_report(plan),)),
    ]


def _step(name: str, *arguments: object, output: Path) -> Step:
    return Step(name, tuple(str(argument) for argument in arguments), output)


def _features(plan: DemoPlan) -> Path:
    return plan.folder / "features.h5"


def _extract(plan: DemoPlan) -> Step:
    chosen = () if plan.extractor == "litemedsam" else ("--extractor", plan.extractor)
    output = _features(plan)
    return _step("extract", "extract", plan.dataset, *chosen, "-o", output, "-j", plan.jobs, output=output)


def _score(plan: DemoPlan, quantifier: str) -> Step:
    chosen: tuple[object, ...] = ("--quantifier", quantifier)
    if quantifier == RANDOM:
        chosen = (*chosen, "--seed", plan.data.seed)
    output = plan.scores(quantifier)
    return _step(f"score_{quantifier}", "score", _features(plan), *chosen, "-o", output, output=output)


def _filter(plan: DemoPlan, quantifier: str) -> Step:
    output = plan.keep_list(quantifier)
    arguments = ("filter", plan.scores(quantifier), "--quantile", f"{plan.quantile:.4g}", "-o", output)
    return _step(f"filter_{quantifier}", *arguments, output=output)


def _train(plan: DemoPlan, arm: str) -> Step:
    run = plan.folder / f"run_{arm}"
    keep = () if arm == ALL_CASES else ("--keep", plan.keep_list(arm))
    return _step(
        f"train_{arm}",
        *("train", plan.dataset, *keep, "-o", run),
        # nnU-Net's own loss in every arm: what changes is the cases alone.
        *("--loss", "plain"),
        # In 2D because slices are thick; sides of a ratio above 1.5 keep nnU-Net from turning patients on their heads,
        # which no training of a minute gets over.
        *("-c", "2d", "--patch-size", "40,64", "--batch-size", 4, "--features", 12, "--lr", 0.1),
        *("--epochs", plan.epochs, "--iterations", plan.iterations, "--val-iterations", 1),
        *("--seed", plan.data.seed),
        output=manifest_path(run),
    )


def _predict(plan: DemoPlan, arm: str) -> Step:
    output = plan.folder / f"predictions_{arm}"
    arguments = ("predict", plan.folder / f"run_{arm}", plan.dataset / "imagesTs", "-o", output)
    return _step(f"predict_{arm}", *arguments, output=manifest_path(output))


def _eval(plan: DemoPlan, arm: str) -> Step:
    output = plan.metrics(arm)
    arguments = ("eval", plan.folder / f"predictions_{arm}", plan.dataset / "labelsTs", "-o", output)
    return _step(f"eval_{arm}", *arguments, output=output)


def _report(plan: DemoPlan) -> Step:
    files = ("--features", _features(plan), "--dataset", plan.dataset, "--keep", plan.keep_list(plan.reported))
    trained = ("--metrics", plan.metrics(ALL_CASES), "--training", plan.folder / f"run_{ALL_CASES}")
    arguments = ("report", plan.scores(plan.reported), *files, *trained, "-o", plan.report)
    return _step("report", *arguments, output=plan.report)
