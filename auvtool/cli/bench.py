"""`auvtool bench`: experiments on data sets whose dirty cases are known, a command each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auvtool import console
from auvtool.cli.bench_detect import detect
from auvtool.cli.case_ids import parse_case_ids
from auvtool.cli.help_text import Command, Group
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Device, DryRun, Force, names_of, with_common_options
from auvtool.errors import InputError, UsageError

if TYPE_CHECKING:
    from auvtool.benchmark.downstream import Experiment
    from auvtool.benchmark.downstream_results import Results
    from auvtool.schema import Row

bench = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Experiments on a data set whose dirty cases are known: does a score find them, does dropping them help?

    \b
      auvtool bench detect Dataset004_Hippocampus -o B -j 2
      auvtool corrupt Dataset004_Hippocampus -o Dataset904_Dirty
      auvtool bench downstream Dataset904_Dirty --key Dataset904_Dirty/answer_key.csv --scores S.csv -o D
    """,
)

_SHOWN = ("arm", "ratio", "cases", "dirty left", "dice", "against all", "against random", "recovered")


@one_run_at_a_time(lambda options: options["output"])
def downstream(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="nnU-Net raw data set that corrupt wrote.")],
    *,
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Its answer_key.csv: which cases are dirty.")],
    scores: Annotated[
        list[Path],
        typer.Option("--scores", metavar="S.csv", help="Scores of `score`; an arm of the file's name. Repeatable."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to fill.")],
    test: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--test", metavar="IMAGES LABELS", help="Clean test cases; by default DATASET's imagesTs and labelsTs."
        ),
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option("--ratios", metavar="Q,Q", help="Shares of the cases to keep; by default that of clean cases."),
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,N", help="Train every arm with each.")] = "0,1,2",
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            metavar="A,B",
            help="Of all, random, each name of --scores, volume, oracle, clean, duo (by default these), and the parts "
            "of duo: duo-rw, duo-en, duo-base.",
        ),
    ] = None,
    val_cases: Annotated[
        str | None,
        typer.Option(
            "--val-cases",
            metavar="IDS",
            help="Clean cases to validate on: ids with commas, or a file; by default those of fold 0.",
        ),
    ] = None,
    train: Annotated[
        str,
        typer.Option(
            "--train",
            metavar='"..."',
            help="Options of `train` for every arm, in quotes; those of DUO's loss for its arms.",
        ),
    ] = "",
    device: Device = "cpu",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Trainings at once, each on one thread.")] = 1,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Train without the cases that scores call dirty, and see whether that helps on clean test cases.

    Every arm is the same training on other cases: all; as many dropped blindly as the filter drops (random); what each
    table of scores keeps; the smallest dropped (volume); the worst dirty ones dropped (oracle); the clean ones alone
    (clean); all of them with the DUO loss (duo), its weights or denoised labels alone (duo-rw, duo-en), or neither
    (duo-base). All others use nnU-Net's own loss. Each is a chain of train, predict and eval, printed as you could
    type it; the data set is planned and preprocessed once. The same command again goes
    on where it was stopped. Writes downstream.csv (each training), downstream_summary.csv (with paired bootstrap
    intervals), downstream.md and downstream.svg in DIR.

    \b
      auvtool bench downstream Dataset904_Dirty --key Dataset904_Dirty/answer_key.csv --scores S.csv -o D \\
        --test Dataset004_Hippocampus/imagesTs Dataset004_Hippocampus/labelsTs --device cuda
      auvtool bench downstream Dataset904_Dirty --key Dataset904_Dirty/answer_key.csv -o D2 \\
        --scores deviation.csv --scores auv.csv --test imagesTs labelsTs --ratios 0.95,0.9,0.8 \\
        --train "-c 2d --epochs 50 --features 16" -j 2
    """
    from auvtool.benchmark.downstream import (
        Experiment,
        check_folder,
        find_candidates,
        open_folder,
        parse_train_options,
        run,
    )
    from auvtool.benchmark.downstream_plan import make_plan
    from auvtool.benchmark.downstream_results import read_results, write_results
    from auvtool.dataset import open_dataset, require_labels
    from auvtool.experiment_schema import ANSWER_KEY
    from auvtool.tables import read_table

    train_options = parse_train_options(train)
    _check_train_options(context, train_options)
    chosen_seeds, chosen_ratios = _seeds(seeds), _ratios(ratios)
    tables = _scores(scores)
    images, labels = _test_set(dataset, test)
    data = require_labels(open_dataset(dataset))
    candidates, validation = find_candidates(
        data, read_table(key, ANSWER_KEY), tables, named=parse_case_ids(val_cases, "--val-cases")
    )
    plan = make_plan(
        candidates,
        arms=names_of(arms, "--arms") or candidates.usual_arms(),
        ratios=chosen_ratios or [candidates.share_clean],
        seeds=chosen_seeds,
    )
    experiment = Experiment(output, data, images, labels, validation, plan, train_options, device, jobs)
    check_folder(experiment, force=force)
    _warn_of_shared_names(experiment)
    for note in plan.notes:
        console.warn(note)
    if dry_run:
        _print_plan(experiment)
        return
    open_folder(experiment, force=force)
    run(experiment, show=not console.is_quiet(), say=console.info)
    results = read_results(experiment)
    write_results(experiment, results, inputs=[dataset, key, *scores])
    _print_results(experiment, results)


def _check_train_options(context: typer.Context, words: tuple[str, ...]) -> None:
    """Have `train` parse its options now, and not when the first arm starts; a wrong one is said as `train` says it."""
    root = context.find_root()
    command: Any = root.command
    command.get_command(root, "train").make_context("train", ["DATASET", "-o", "RUN", *words], parent=root)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in names_of(text, "--seeds")]
    except ValueError as error:
        raise UsageError(f"--seeds: expected whole numbers like 0,1,2, got {text}; correct them") from error
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: expected different numbers from 0 on, got {text}; correct them")
    return seeds


def _ratios(text: str | None) -> list[float]:
    try:
        ratios = [float(ratio) for ratio in names_of(text, "--ratios")]
    except ValueError as error:
        raise UsageError(f"--ratios: expected numbers like 0.9,0.8, got {text}; correct them") from error
    if not all(0.0 < ratio < 1.0 for ratio in ratios) or len({f"{ratio:g}" for ratio in ratios}) < len(ratios):
        raise UsageError(f"--ratios: expected different numbers between 0 and 1, got {text}; correct them")
    return ratios


def _scores(paths: list[Path]) -> "dict[str, list[Row]]":
    from auvtool.benchmark.downstream_plan import FIXED_ARMS
    from auvtool.schema import SCORES
    from auvtool.tables import read_table

    tables: dict[str, list[Row]] = {}
    for path in paths:
        if path.stem in FIXED_ARMS or path.stem in tables or "," in path.stem:
            raise UsageError(
                f"--scores {path}: expected a file name that no other arm has, without a comma, got {path.stem}; "
                "rename the file"
            )
        tables[path.stem] = read_table(path, SCORES)
    return tables


def _test_set(dataset: Path, test: tuple[Path, Path] | None) -> tuple[Path, Path]:
    folders = test or (dataset / "imagesTs", dataset / "labelsTs")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                folder,
                expected="a folder of clean test cases",
                found="none",
                cure="name one of images and one of labels with --test",
            )
    return folders


def _warn_of_shared_names(experiment: "Experiment") -> None:
    ending = experiment.dataset.file_ending
    tested = {file.name.removesuffix(ending) for file in experiment.test_labels.iterdir()}
    shared = sorted(tested & {case.case_id for case in experiment.dataset.cases})
    if shared:
        console.warn(
            f"{len(shared)} test cases have the name of a training case ({console.some(shared)}): are they it?"
        )


def _print_plan(experiment: "Experiment") -> None:
    from auvtool.benchmark.downstream import chain, n_done

    plan = experiment.plan
    print(
        f"data set     {experiment.dataset.name}, {plan.n_candidates} cases to train on, {plan.n_dirty} of them dirty"
    )
    print(f"validation   {len(experiment.validation)} clean cases: {', '.join(experiment.validation)}")
    print(f"test set     {experiment.test_images}, {experiment.test_labels}")
    print(f"trainings    {len(plan.trainings)}, of which {n_done(experiment)} are done")
    print(f"output       {experiment.folder}\n")
    shown: list[Row] = [
        {
            "arm": run.arm,
            "ratio": None if run.ratio is None else f"{run.ratio:.3g}",
            "seed": run.seed,
            "cases": len(run.training.kept),
            "dirty left": run.n_dirty_left,
            "training": run.training.name,
        }
        for run in plan.runs
    ]
    console.print_table(shown, list(shown[0]), title="Runs (one training may stand for several)")
    print("\nThe first of them:")
    for step in chain(experiment, plan.trainings[0], prepare_jobs=experiment.jobs):
        print(f"  {step.command_line}")


def _print_results(experiment: "Experiment", results: "Results") -> None:
    n_test, folder = results.setting.n_test, experiment.folder
    title = (
        f"Mean Dice of the classes on {n_test} test cases (95 % intervals; the other classes: {folder}/downstream.md)"
    )
    console.print_table(results.shown(), _SHOWN, title=title)
    print()
    print("\n".join(results.findings()))


# In the order of the help.
for _command, _line in (
    (detect, "See which scores find known faults."),
    (downstream, "See whether training without dirty cases helps."),
):
    bench.command(_command.__name__, cls=Command, short_help=_line)(with_common_options(_command))
