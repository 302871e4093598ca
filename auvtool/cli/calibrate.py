"""`auvtool calibrate`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import (
    Device,
    Force,
    Format,
    Jobs,
    MaxMemory,
    Output,
    Seed,
    refuse_input_as_output,
    workplace_of,
)
from auvtool.errors import UsageError
from auvtool.plural import counted
from auvtool.schema import SCORES
from auvtool.tables import STANDARD_STREAM, check_output, write_table

if TYPE_CHECKING:
    from auvtool.calibrating import Calibration
    from auvtool.case_extraction import CaseOutcome

_SHOWN = ("rank", "case", "value", "auv", "reason")


@one_run_at_a_time(
    lambda options: options["output"], lambda options: _copies_file(options["copies"], options["features"])
)
def calibrate(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The data set that the features are of.")],
    features: Annotated[Path, typer.Argument(metavar="F.h5", help="Features file that extract wrote.")],
    *,
    output: Output = STANDARD_STREAM,
    copies: Annotated[
        Path | None,
        typer.Option(
            "--copies",
            metavar="C.h5",
            help="Features of the corrupt copies: kept here, used again.  [default: F.copies.h5]",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="DIR", help="Labels; by default those of the data set.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="The checkpoint that the features were made with.")
    ] = None,
    n_cases: Annotated[int, typer.Option("--cases", min=4, help="Cases to make corrupt copies of.")] = 40,
    n_copies: Annotated[int, typer.Option("--per-case", min=1, help="Copies of each, one fault each.")] = 8,
    prior: Annotated[
        float, typer.Option("--prior", help="Share of dirty cases that you expect; moves probabilities, no rank.")
    ] = 0.1,
    device: Device = "cpu",
    jobs: Jobs = 1,
    max_memory: MaxMemory = None,
    seed: Seed = 0,
    table_format: Format = None,
    force: Force = False,
) -> None:
    """Learn from the data set itself which cases are dirty, and say why.

    Copies of some cases get one known fault each (of the image: noise, blur, thick slices, motion, ghosts, ...; of the
    label: dilated, shifted, missing slices, holes, another case's, ...), go through the same extractor, and randomised
    trees learn which evidence tells them from the cases as they are: spectra, agreement with the model's own masks,
    label shape, how the outline sits on the image, image quality, features. Each case is then judged by models that
    have not seen it. `value` is the probability of being dirty, `reason` its most unusual evidence; filter and
    correlate take the table as they take scores. How well faults are found that the models were *not* trained on is
    printed beside what `score --quantifier deviation`, which needs no training, finds.

    \b
      auvtool calibrate Dataset004_Hippocampus F.h5 -o S.csv -j 4
      auvtool calibrate Dataset004_Hippocampus F.h5 | auvtool filter - --quantile 0.95 --ids > kept.txt
    """
    if not 0.0 < prior < 1.0:
        raise UsageError(f"--prior: expected a share between 0 and 1, got {prior:g}; for example 0.1")
    check_output(output, requested=table_format, force=force)
    kept = _copies_file(copies, features)
    refuse_input_as_output(output, [features, kept])

    from auvtool.calibrating import calibrate as learn
    from auvtool.calibrating import extract_copies, plan_copies, settings_of
    from auvtool.case_extraction import inputs_digest
    from auvtool.dataset import open_dataset, require_labels
    from auvtool.faulty_copies import donors
    from auvtool.feature_store import FeatureFile
    from auvtool.manifest import write_manifest
    from auvtool.quantification import read_cases

    workplace = workplace_of(context, jobs=jobs, max_memory=max_memory)
    if kept.is_file():
        _refuse_other_features(kept)
    with FeatureFile(features) as file:
        header, cases = file.header, read_cases(file)
    data = require_labels(open_dataset(dataset, labels=labels))
    plan = plan_copies(
        data,
        [case.case_id for case in cases],
        header,
        settings_of(header, weights=weights, device=device),
        kept,
        n_cases=n_cases,
        n_copies=n_copies,
        seed=seed,
        force=True,
    )
    digest = inputs_digest(plan.dataset)
    if kept.is_file() and _holds(kept, plan.header.fingerprint, digest):
        console.info(f"calibrate: {kept} holds the copies")
    else:
        if kept.is_file() and not (force or plan.is_unfinished):
            raise UsageError(
                f"{kept}: expected the copies that these options and cases ask for, got others; name another file with "
                "--copies, or add --force to make them anew"
            )
        with console.progress("calibrate: copies", len(plan.waiting())) as bar:

            def on_case(outcome: "CaseOutcome") -> None:
                bar.advance(outcome.case_id)
                if outcome.error is not None:
                    console.detail(str(outcome.error))

            def on_written(_: object) -> None:
                write_manifest(
                    kept,
                    command="calibrate",
                    options={"inputs_sha256": digest, "seed": seed, "cases": n_cases, "per_case": n_copies},
                    inputs=[dataset],
                    counts={"copies": len(plan.dataset.cases)},
                    model_sha256=header.weights_sha256,
                )

            extract_copies(plan, workplace=workplace, on_case=on_case, on_written=on_written)
    with FeatureFile(kept) as file:
        made = read_cases(file)
    given = donors(plan.dataset.cases, data.cases)
    found = learn(cases, made, header, prior=prior, seed=seed, donors=given)
    _say(found, n_asked=len(plan.dataset.cases))
    if console.wants_reading(output, table_format):
        whole = [row for row in found.rows if row["class_id"] is None]
        whole.sort(key=lambda row: -row["value"] if isinstance(row["value"], float) else math.inf)
        console.print_table([{"rank": rank, **row} for rank, row in enumerate(whole, start=1)], _SHOWN)
        return
    write_table(found.rows, SCORES, output, requested=table_format, force=force)
    if not is_piped(output):
        console.info(f"calibrate: {counted(len(cases), 'case')} in {output}")
        write_manifest(
            output,
            command="calibrate",
            options={"prior": prior, "seed": seed, "cases": n_cases, "per_case": n_copies, "copies": kept},
            inputs=[dataset, features],
            counts={"cases": len(cases), "copies": found.n_copies},
            model_sha256=header.weights_sha256,
        )


def _copies_file(copies: Path | None, features: Path) -> Path:
    return copies or features.with_name(features.stem + ".copies.h5")


def _refuse_other_features(path: Path) -> None:
    """A file to make anew may hold nothing but copies: features of cases are somebody's work."""
    from auvtool.faults import split_copy_id
    from auvtool.feature_store import FeatureFile

    with FeatureFile(path) as file:
        other = next((case_id for case_id in file.case_ids if split_copy_id(case_id) is None), None)
    if other is not None:
        raise UsageError(f"--copies: expected a file of copies, got {path} with case {other}; name another file")


def _holds(path: Path, fingerprint: str, digest: str) -> bool:
    """Whether the file was made in this way, of these copies, from the files as they are now."""
    from auvtool.feature_store import FeatureFile
    from auvtool.manifest import recorded_option

    with FeatureFile(path) as file:
        return file.header.fingerprint == fingerprint and recorded_option(path, "inputs_sha256") == digest


def _say(found: "Calibration", *, n_asked: int) -> None:
    lost = n_asked - found.n_copies
    if lost:
        console.info(f"calibrate: {lost} of {n_asked} copies could not be made (their fault changes nothing there)")
    for level in ("high", "medium", "low"):
        model, plain = found.mean_auroc(level)
        if not math.isnan(model):
            console.info(
                f"calibrate: faults of families not learnt from, level {level}: mean AUROC {model:.2f}; deviation "
                f"without learning {plain:.2f}"
            )
