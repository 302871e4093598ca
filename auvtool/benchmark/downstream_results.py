"""The result files of a finished downstream experiment."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from auvtool.atomic import write_text
from auvtool.benchmark import downstream_report, downstream_tables
from auvtool.benchmark.downstream import Experiment, read_metrics
from auvtool.benchmark.downstream_plot import write_plot
from auvtool.benchmark.downstream_report import Setting
from auvtool.experiment_schema import DOWNSTREAM, DOWNSTREAM_SUMMARY
from auvtool.manifest import write_manifest
from auvtool.schema import Row
from auvtool.tables import write_table


@dataclass(frozen=True)
class Results:
    """Rows of the DOWNSTREAM and DOWNSTREAM_SUMMARY tables, and what has to be known to read them."""

    rows: list[Row]
    summary: list[Row]
    setting: Setting

    def shown(self) -> list[Row]:
        """The mean of the classes as a table to read."""
        return downstream_report.shown_rows(self.rows, self.summary)

    def findings(self) -> list[str]:
        """What it shows and does not show."""
        return downstream_report.findings(self.rows, self.summary, self.setting)


def read_results(experiment: Experiment) -> Results:
    """From the metrics of all trainings.

    Raises:
        InputError: a table is missing or does not fit the others (see `read_metrics` and `measure`).
    """
    plan = experiment.plan
    measured = downstream_tables.measure(plan, read_metrics(experiment))
    setting = Setting(
        dataset_name=experiment.dataset.name,
        n_candidates=plan.n_candidates,
        n_dirty=plan.n_dirty,
        n_validation=len(experiment.validation),
        n_test=len(measured.case_ids),
        train_options=shlex.join(experiment.train_options),
        device=experiment.device,
        notes=plan.notes,
    )
    rows = downstream_tables.downstream_rows(plan, measured)
    return Results(rows, downstream_tables.summary_rows(measured), setting)


def write_results(experiment: Experiment, results: Results, *, inputs: Sequence[Path]) -> None:
    """Write downstream.csv, downstream_summary.csv, downstream.md and downstream.svg, replacing those of another time.

    Args:
        experiment: that was run.
        results: what came out.
        inputs: named in the manifest.
    """
    plan, folder = experiment.plan, experiment.folder
    write_table(results.rows, DOWNSTREAM, folder / "downstream.csv", force=True)
    write_table(results.summary, DOWNSTREAM_SUMMARY, folder / "downstream_summary.csv", force=True)
    text = downstream_report.report(results.rows, results.summary, results.setting)
    write_text(folder / "downstream.md", text, force=True)
    write_plot(folder / "downstream.svg", results.rows)
    write_manifest(
        folder / "downstream.csv",
        command="bench downstream",
        options={
            "arms": list(dict.fromkeys(run.arm for run in plan.runs)),
            "ratios": list(dict.fromkeys(run.ratio for run in plan.runs if run.ratio is not None)),
            "seeds": list(dict.fromkeys(run.seed for run in plan.runs)),
            "val_cases": list(experiment.validation),
            "train": results.setting.train_options,
            "device": experiment.device,
        },
        inputs=[*inputs, experiment.test_images, experiment.test_labels],
        counts={"runs": len(plan.runs), "trainings": len(plan.trainings), "test_cases": results.setting.n_test},
    )
