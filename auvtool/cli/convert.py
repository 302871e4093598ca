"""`auvtool convert`."""

from collections import defaultdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import DryRun, Force, Jobs, MaxMemory, Seed, is_typed, workplace_of
from auvtool.errors import CasesFailed, UsageError

if TYPE_CHECKING:
    from auvtool.conversion import ConversionResult
    from auvtool.conversion_plan import ConversionPlan


class Name(StrEnum):
    """Data sets that can be converted (auvtool.converters.CONVERTERS)."""

    LITS = "lits"
    TOTALSEGMENTATOR = "totalsegmentator"
    WORD = "word"
    FETA = "feta"
    KITS23 = "kits23"
    MSD = "msd"


@one_run_at_a_time(lambda options: options["folder"])
def convert(
    context: typer.Context,
    name: Annotated[Name, typer.Argument(metavar="NAME", help="lits, totalsegmentator, word, feta, kits23 or msd.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the data set as unpacked; it stays as is.")],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Data set DatasetXXX_Name to write.")],
    *,
    split: Annotated[
        Literal["own", "random", "none"] | None,
        typer.Option(
            "--split",
            help="Test cases: as published, drawn, or none; by default own for totalsegmentator and msd, else random.",
        ),
    ] = None,
    test_share: Annotated[
        float, typer.Option("--test-share", metavar="S", help="Share of the cases that --split random draws as test.")
    ] = 0.2,
    seed: Seed = 0,
    link: Annotated[
        bool, typer.Option("--link/--by-reference", help="Symbolic links in imagesTr and labelsTr, or dataset.json.")
    ] = False,
    jobs: Jobs = 1,
    max_memory: MaxMemory = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Make an nnU-Net raw data set of a public one as it was downloaded, without copying a scan.

    Training cases are named by reference in dataset.json (or linked, --link), so SRC must stay; test cases are links in
    imagesTs and labelsTs. Only what must change is written: the binary masks of TotalSegmentator as one label map,
    several channels in one file (msd), a label or an image whose header disagrees with the other's. What is odd about a
    case is listed, a line a quirk, and stands in quirks.csv. Cases that fail are listed in failures.csv and are not in
    the data set (exit 4). A killed run goes on where it stopped; so does --force after the cases were put right.

    The split is the paper's: a fifth of the published training and validation cases is drawn as test; totalsegmentator
    has its own in meta.csv, and its validation cases become fold 0 (splits_final.json).

    \b
      auvtool convert lits LITS nnUNet_raw/Dataset003_LiTS
      auvtool convert totalsegmentator Totalsegmentator_dataset_v201 nnUNet_raw/Dataset117_TotalSegmentator -j 8
      auvtool convert word WORD-V0.1.0 nnUNet_raw/Dataset120_WORD --split own
      auvtool convert feta feta_2.2 nnUNet_raw/Dataset122_FeTA
      auvtool convert kits23 kits23 nnUNet_raw/Dataset220_KiTS23
      auvtool convert msd Task04_Hippocampus nnUNet_raw/Dataset004_Hippocampus --link
    """
    from auvtool.conversion import write_converted_dataset
    from auvtool.conversion_plan import plan_conversion
    from auvtool.converters import CONVERTERS

    workplace = workplace_of(context, jobs=jobs, max_memory=max_memory)
    known = next(key for key in CONVERTERS if key == name.value)
    plan = plan_conversion(known, source, folder, split=split, test_share=test_share, seed=seed, link=link, force=force)
    if plan.split != "random" and is_typed(context, "test_share"):
        raise UsageError(
            f"--test-share: expected --split random beside it, got {plan.split}; add it, or leave this out"
        )
    _say_plan(plan, seed=seed, dry_run=dry_run)
    if dry_run:
        return
    options = {
        "name": name.value,
        "folder": folder,
        "split": plan.split,
        "test_share": test_share,
        "seed": seed,
        "link": link,
    }
    with console.progress("convert", len(plan.cases)) as bar:
        result = write_converted_dataset(
            plan,
            options=options,
            workplace=workplace,
            on_case=bar.advance,
            on_worker_died=console.warn_of_killed_worker,
        )
    _say_result(plan, result)
    print(folder)
    if result.failures:
        for row in result.failures:
            console.error(f"{row['case']}: {row['error']}")
        n_cases = len(result.failures) + result.n_training + result.n_test
        raise CasesFailed(
            f"{len(result.failures)} of {n_cases} cases failed ({folder / 'failures.csv'}); {folder} holds the others; "
            "put them right and run again with --force"
        )


def _say_plan(plan: "ConversionPlan", *, seed: int, dry_run: bool) -> None:
    how = f"random, seed {seed}" if plan.split == "random" else plan.split
    console.info(
        f"convert: {plan.name}: {len(plan.cases) - plan.n_test} cases {'would be' if dry_run else 'are'} for training, "
        f"{plan.n_test} for testing (split {how}), {len(plan.source.problems)} not usable"
    )
    for note in plan.notes:
        console.info(f"convert: note: {note}")
    if dry_run:
        for problem in plan.source.problems:
            console.warn(f"{problem.case_id}: {problem.error}")


def _say_result(plan: "ConversionPlan", result: "ConversionResult") -> None:
    cases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in result.quirks:
        cases[str(row["quirk"]), str(row["text"])].append(str(row["case"]))
    for (quirk, text), ids in sorted(cases.items()):
        n_cases = f"{len(ids)} case{'' if len(ids) == 1 else 's'}"
        console.info(f"convert: {quirk}: {n_cases} ({console.some(ids)}): {text}")
    before = f", {result.n_made_before} of them made before" if result.n_made_before else ""
    console.info(f"convert: {plan.folder}: {result.n_training} training and {result.n_test} test cases{before}")
