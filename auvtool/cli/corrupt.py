"""`auvtool corrupt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Cluster, DryRun, Force, Jobs, MaxMemory, Seed, names_of, workplace_of
from auvtool.errors import CasesFailed
from auvtool.plural import counted

if TYPE_CHECKING:
    from auvtool.corrupting import CorruptionPlan, CorruptionResult, SpoiltCase


@one_run_at_a_time(lambda options: options["output"])
def corrupt(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="nnU-Net raw data set; it stays as it is.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Data set DatasetXXX_Name to write.")],
    share: Annotated[
        float, typer.Option("--share", metavar="S", help="Share of the cases to spoil, above 0 and up to 1.")
    ] = 0.2,
    kinds: Annotated[
        str | None,
        typer.Option("--kinds", metavar="A,B", help="Kinds of fault, dealt evenly; by default all but the null tests."),
    ] = None,
    level: Annotated[
        Literal["low", "medium", "high", "mixed"],
        typer.Option("--level", help="How bad; mixed: each kind at all its levels in turn."),
    ] = "mixed",
    seed: Seed = 0,
    jobs: Jobs = 1,
    cluster: Cluster = None,
    max_memory: MaxMemory = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Write a copy of a data set in which a known share of the cases is dirty, to see what finds them.

    The cases are drawn blindly, and each gets one fault. What a fault changed is written; all else is named by
    reference in dataset.json, so the source must stay. answer_key.csv in the new data set says which cases are dirty,
    how, and how badly: the Dice of the label with the clean one, the peak signal-to-noise ratio of the image. A kind
    that changes nothing in a case (two classes exchanged where there is one) gives way to another of the kinds. Cases
    that fail are listed in failures.csv and are not in the new data set (exit 4). The same command goes on after a
    kill. Prints the new data set's folder.

    Faults of images: gaussian-noise, rician-noise, blur, thick-slices, ghosting, bias-field, spike, motion, gamma,
    truncated-view, flipped-axis; null tests, which change gain and offset alone: contrast, wrong-units.

    Faults of labels: dilated, eroded, rough-boundary, shifted, missing-slices, missing-component, swapped-classes,
    extra-blob, holes, mirrored-label, other-label.

    flipped-axis, wrong-units, missing-component, swapped-classes, mirrored-label and other-label have one level, high,
    whatever --level says.

    \b
      auvtool corrupt Dataset004_Hippocampus -o Dataset904_Dirty
      auvtool corrupt Dataset004_Hippocampus -o Dataset905_Noisy --kinds gaussian-noise,blur --level high --share 0.1
      auvtool corrupt Dataset003_Liver -o Dataset903_Dirty --seed 1 -j 4
    """
    from auvtool.corrupting import DEFAULT_KINDS, plan_corruption, write_corrupt_dataset
    from auvtool.dataset import open_dataset

    workplace = workplace_of(context, jobs=jobs, cluster=cluster, max_memory=max_memory)
    plan = plan_corruption(
        open_dataset(dataset),
        output,
        share=share,
        kinds=names_of(kinds, "--kinds") or DEFAULT_KINDS,
        level=level,
        seed=seed,
        force=force,
    )
    _say_plan(plan, dry_run=dry_run)
    if dry_run:
        return
    options = {"output": output, "share": share, "kinds": kinds, "level": level, "seed": seed}
    with console.progress("corrupt", len(plan.dirty)) as bar:

        def on_case(outcome: "SpoiltCase") -> None:
            bar.advance(outcome.case_id)

        result = write_corrupt_dataset(
            plan, options=options, workplace=workplace, on_case=on_case, on_worker_died=console.warn_of_killed_worker
        )
    _say_result(plan, result)
    print(output)
    if result.failures:
        for row in result.failures:
            console.error(f"{row['case']}: {row['error']}")
        raise CasesFailed(
            f"{len(result.failures)} of {len(result.key) + len(result.failures)} cases failed "
            f"({output / 'failures.csv'}); {output} holds the others; correct them and run again with --force"
        )


def _say_plan(plan: "CorruptionPlan", *, dry_run: bool) -> None:
    dealt = ", ".join(f"{kind} {n}" for kind, n in plan.n_of_kind().items())
    console.info(
        f"corrupt: {len(plan.dirty)} of {len(plan.clean) + len(plan.dirty)} cases of {plan.source.name} "
        f"{'would get' if dry_run else 'get'} a fault: {dealt}; {len(plan.problems)} not usable"
    )
    for item in plan.dirty:
        console.detail(f"corrupt: {item.case.case_id}: {item.faults[0].kind} ({item.faults[0].level})")


def _say_result(plan: "CorruptionPlan", result: "CorruptionResult") -> None:
    n_dirty = sum(bool(row["dirty"]) for row in result.key)
    if result.substituted:
        console.warn(
            f"{counted(len(result.substituted), 'case')} could not take the kind that was dealt, and got another "
            f"({console.some(result.substituted)})"
        )
    before = f", {result.n_made_before} of them made before" if result.n_made_before else ""
    console.info(f"corrupt: {plan.folder}: {n_dirty} of {len(result.key)} cases dirty, as answer_key.csv says{before}")
