"""`auvtool demo`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auvtool import console
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Force, Jobs, Seed

if TYPE_CHECKING:
    from auvtool.demonstration.commands import DemoPlan
    from auvtool.demonstration.session import Findings


@one_run_at_a_time(lambda options: options["output"])
def demo(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to fill.")] = Path(
        "auvtool-demo"
    ),
    jobs: Jobs = 2,
    seed: Seed = 0,
    force: Force = False,
    quick: Annotated[bool, typer.Option("--quick", hidden=True, help="No model, no training to speak of.")] = False,
) -> None:
    """Run the whole chain once on phantoms whose dirty cases are known.

    Draws a small CT-like data set, spoils some of its training cases in several ways, and runs the other commands on
    it, each printed as you could type it: extract, score, filter, train, predict, eval, report. Then says which dirty
    cases were found, and what leaving the suspects out did to the Dice on clean test cases. Takes minutes on two CPU
    cores, needs no data and no network. All files stay in DIR; run again, it goes on where it was stopped.

    \b
      auvtool demo
      auvtool demo -o /tmp/demo --seed 1 > findings.txt
    """
    from auvtool.demonstration.commands import DemoPlan
    from auvtool.demonstration.phantom_data import DataPlan
    from auvtool.demonstration.session import open_folder, run

    data = DataPlan(seed=seed)
    plan = DemoPlan(output, data, jobs)
    if quick:
        plan = DemoPlan(output, data, jobs, extractor="identity", quantifiers=("auv", "random"), epochs=1, iterations=2)
    start = time.monotonic()
    open_folder(plan, force=force)
    found = run(plan, show=not console.is_quiet(), say=console.info)
    console.info(f"done in {time.monotonic() - start:.0f} s")
    _print_findings(plan, found)
    _print_next(plan)


def _print_findings(plan: "DemoPlan", found: "Findings") -> None:
    from auvtool.demonstration.commands import RANDOM

    columns = ["case", "fault", "label Dice"]
    for name in (item for item in plan.quantifiers if item != RANDOM):
        columns += [name, f"{name} rank", f"{name} drops"]
    print()
    console.print_table(
        found.dirty,
        columns,
        title="The dirty cases (label Dice: with the clean label; high values are suspect, rank 1 is the most suspect)",
    )
    print()
    print("\n".join(found.detection))
    print()
    title = f"Mean Dice on {plan.data.n_test} clean test cases, trained on all cases or without some"
    console.print_table(found.dice, ["class", *plan.arms], title=title)
    print()
    print("\n".join(found.comparison))


def _print_next(plan: "DemoPlan") -> None:
    print(f"""
To look at, in {plan.folder}:
  {plan.dataset.name}/      the phantoms, an nnU-Net raw data set (any NIfTI viewer shows them)
  {plan.report.name}               ranked cases, slices, what a filter would drop, in a browser
  answer_key.csv            what was spoiled, and how
  features.h5 scores_*.csv keep_*.csv run_*/ predictions_*/ metrics_*.csv logs/

Next, on your own nnU-Net raw data set (auvtool COMMAND --help has the options):
  auvtool extract Dataset123_Name -o F.h5 -j 2
  auvtool score F.h5 --quantifier deviation -o S.csv
  auvtool filter S.csv --quantile 0.9 -o K.csv
  auvtool report S.csv --features F.h5 --dataset Dataset123_Name --keep K.csv -o R.html
  auvtool train Dataset123_Name --keep K.csv -o RUN --device cuda
  auvtool predict RUN Dataset123_Name/imagesTs -o P --device cuda
  auvtool eval P Dataset123_Name/labelsTs -o M.csv""")
