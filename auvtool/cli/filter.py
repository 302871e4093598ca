"""`auvtool filter`."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.atomic import is_piped, write_text
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import DryRun, Force, Format, Output, check_plot_option, names_of, refuse_input_as_output
from auvtool.errors import UsageError
from auvtool.plural import counted
from auvtool.schema import KEEP_LIST, SCORES, Row
from auvtool.tables import STANDARD_STREAM, check_output, read_table, write_table

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from auvtool.keep_list import KeepList
    from auvtool.reference_dataset import ReferenceDataset
    from auvtool.split_fold import FilteredFold

_SHOWN_CLASSES = 10


# To a split file that a few filters append to at once each of them adds its fold: they wait for one another.
@one_run_at_a_time(lambda options: options["splits"] and options["splits"].resolve(), patience_s=60.0)
@one_run_at_a_time(lambda options: options["output"], lambda options: options["plot"])
def filter(
    scores: Annotated[Path, typer.Argument(metavar="S.csv", help="Scores of `score`; '-' is standard input.")],
    *,
    output: Output = STANDARD_STREAM,
    quantile: Annotated[
        float, typer.Option("--quantile", metavar="Q", help="Share of the cases to keep, above 0 and up to 1.")
    ] = 0.9,
    per_class: Annotated[
        Literal["union", "intersection"] | None,
        typer.Option("--per-class", help="Keep what any class keeps (eq. 9), or only what all classes keep."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="A,B", help="Names or ids of the classes that decide (eq. 9 on these)."),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Write only the ids of the kept cases, one a line.")] = False,
    splits: Annotated[
        Path | None,
        typer.Option(
            "--append-fold", metavar="splits_final.json", help="Append a filtered copy of a fold to this file."
        ),
    ] = None,
    fold: Annotated[int, typer.Option("--fold", min=0, help="The fold that --append-fold copies.")] = 0,
    new_dataset: Annotated[
        Path | None,
        typer.Option("--new-dataset", metavar="DIR", help="Write a data set DatasetXXX_Name of the kept cases."),
    ] = None,
    by_reference: Annotated[
        bool,
        typer.Option(
            "--by-reference",
            help="Of --new-dataset: its dataset.json names the files, no copies; the one way there is.",
        ),
    ] = False,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", metavar="SRC", help="The raw data set that --new-dataset filters.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw the AUVs and where the quantile cuts them (.svg, .png or .pdf)."
        ),
    ] = None,
    table_format: Format = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Decide which cases to train on: those whose AUV does not exceed the quantile Q (eqs. 7 to 9).

    Without --per-class the AUV of the whole case decides (eq. 8). A case without an AUV is kept, and the reason given.
    Refuses to leave a class without a case.

    --append-fold adds to nnU-Net's split file a copy of a fold that trains on the kept cases only, with the same
    validation cases, so that both folds compare; with -o FILE its number is printed. nnU-Net then trains on it with
    that number. A fold that is there already is found again.

    \b
      auvtool filter S.csv --quantile 0.9 -o K.csv
      auvtool score F.h5 | auvtool filter - --quantile 0.95 --ids > kept.txt
      auvtool filter S.csv --quantile 0.9 -o K.csv --plot K.svg
      auvtool filter S.csv --per-class intersection --classes tumour -o K.csv
      FOLD=$(auvtool filter S.csv --quantile 0.9 -o K.csv --append-fold splits_final.json)
      auvtool filter S.csv -o K.csv --new-dataset Dataset104_Clean --by-reference --dataset Dataset004_Hippocampus
    """
    if not 0.0 < quantile <= 1.0:
        raise UsageError(
            f"--quantile: expected a number above 0 and up to 1, got {quantile:g}; 0.9 keeps nine of ten cases"
        )
    if fold and splits is None:
        raise UsageError("--fold: expected --append-fold beside it, got none; name the split file")
    if (new_dataset is None) != (dataset is None) or (by_reference and new_dataset is None):
        raise UsageError("--new-dataset: expected --new-dataset DIR --dataset SRC together, got a part; add the other")
    # Ids are no table: they may have any ending.
    check_output(output, requested=table_format or "csv" if ids else table_format, force=force)
    refuse_input_as_output(output, [scores] if splits is None else [scores, splits])
    if plot is not None:
        check_plot_option(plot, output, force=force)

    from auvtool import keep_list

    wanted = names_of(classes, "--classes")
    rows = read_table(scores, SCORES)
    judged = keep_list.judge(rows, quantile, per_class=per_class or ("union" if wanted else None), classes=wanted)
    keep, presence = keep_list.keep_list(judged), keep_list.class_presence(rows)
    keep_list.refuse_lost_class(presence, frozenset(str(row["case"]) for row in judged), keep.kept)
    # All that can be refused is refused here, before the first file is written.
    copied = None if splits is None else _plan_fold(splits, fold, keep, presence)
    reference = None if new_dataset is None else _plan_dataset(new_dataset, dataset, keep, presence, force=force)

    _say_what_goes(rows, judged, keep.kept, quantile=quantile)
    _say_what_is_written(splits, fold, copied, reference, dry_run=dry_run)
    if dry_run:
        return
    _write_plans(splits, copied, reference)
    if plot is not None:
        by_class = per_class is not None or bool(wanted)
        _draw(plot, keep_list.judged_auv(rows, by_class=by_class, classes=wanted), quantile, force=force)
    _write(judged, output, ids=ids, table_format=table_format, force=force)
    if output == STANDARD_STREAM:
        return
    if not is_piped(output):
        from auvtool.manifest import write_manifest

        write_manifest(
            output,
            command="filter",
            options={
                "quantile": quantile,
                "per_class": per_class,
                "classes": wanted,
                "ids": ids,
                "append_fold": splits,
                "fold": fold,
                "new_dataset": new_dataset,
                "dataset": dataset,
                "plot": plot,
            },
            inputs=[scores],
            counts={"kept": len(keep.kept), "dropped": len(judged) - len(keep.kept)},
        )
    if copied is not None:
        print(copied.number)


def _draw(path: Path, auv: "Mapping[str, Float[np.ndarray, ' case']]", quantile: float, *, force: bool) -> None:
    from auvtool.filtering import auv_threshold
    from auvtool.plots import AuvDistributions, plot_scores

    limits = {name: auv_threshold(values, quantile) for name, values in auv.items()}
    thresholds = {name: limit for name, limit in limits.items() if not math.isnan(limit)}
    plot_scores(path, None, AuvDistributions(auv, thresholds), title=f"Quantile {quantile:g}", force=force)


def _plan_fold(splits: Path, fold: int, keep: "KeepList", presence: Mapping[str, frozenset[str]]) -> "FilteredFold":
    from auvtool.keep_list import refuse_lost_class
    from auvtool.split_fold import filtered_fold

    copied = filtered_fold(splits, keep, fold=fold)
    refuse_lost_class(presence, frozenset((*copied.train, *copied.dropped)), frozenset(copied.train))
    return copied


def _plan_dataset(
    folder: Path, source: Path | None, keep: "KeepList", presence: Mapping[str, frozenset[str]], *, force: bool
) -> "ReferenceDataset | None":
    from auvtool.dataset import open_dataset
    from auvtool.keep_list import refuse_lost_class
    from auvtool.reference_dataset import reference_dataset

    if source is None:
        return None
    opened = open_dataset(source)
    reference = reference_dataset(folder, opened, keep, force=force)
    refuse_lost_class(presence, frozenset(case.case_id for case in opened.cases), frozenset(reference.case_ids))
    return reference


def _write_plans(splits: Path | None, copied: "FilteredFold | None", reference: "ReferenceDataset | None") -> None:
    if copied is not None and splits is not None:
        from auvtool.split_fold import append_fold

        append_fold(splits, copied)
    if reference is not None:
        from auvtool.reference_dataset import write_reference_dataset

        write_reference_dataset(reference)


def _write(judged: Sequence[Row], output: Path, *, ids: bool, table_format: str | None, force: bool) -> None:
    if ids:
        from auvtool.keep_list import plain_ids

        text = plain_ids([str(row["case"]) for row in judged if row["keep"]])
        if output == STANDARD_STREAM:
            sys.stdout.write(text)
        else:
            write_text(output, text, force=force)
    elif console.wants_reading(output, table_format):
        console.print_table(judged, KEEP_LIST.column_names())
    else:
        write_table(judged, KEEP_LIST, output, requested=table_format, force=force)


def _say_what_goes(scores: Sequence[Row], judged: Sequence[Row], kept: frozenset[str], *, quantile: float) -> None:
    from auvtool.keep_list import class_losses

    unjudged = [str(row["case"]) for row in judged if row["keep"] and row["reason"] is not None]
    console.info(f"filter: {len(kept)} of {len(judged)} cases kept, {len(judged) - len(kept)} dropped")
    if len(kept) == len(judged) and quantile < 1:
        console.warn(f"--quantile {quantile:g} of {len(judged)} cases drops none; a smaller one drops some")
    if unjudged:
        console.warn(f"kept because not judged: {counted(len(unjudged), 'case')} ({console.some(unjudged)})")
    *classes, whole = class_losses(scores, kept)
    for loss in [*classes, whole] if len(classes) != 1 else classes:
        say = console.info if len(classes) <= _SHOWN_CLASSES or loss is whole else console.detail
        line = f"filter: {loss.class_name}: in {loss.n_kept} kept and {loss.n_dropped} dropped cases"
        if loss.median_ml_kept is not None and loss.median_ml_dropped is not None:
            line += f", median volume {loss.median_ml_kept:.3g} and {loss.median_ml_dropped:.3g} ml"
        if loss.n_dropped and loss.tertiles:
            small, middle, large = (f"{gone} of {n}" for gone, n in loss.tertiles)
            line += f"; dropped {small} of the smallest third, {middle} of the middle, {large} of the largest"
        say(line)


def _say_what_is_written(
    splits: Path | None,
    fold: int,
    copied: "FilteredFold | None",
    reference: "ReferenceDataset | None",
    *,
    dry_run: bool,
) -> None:
    would = "would be " if dry_run else ""
    if copied is not None:
        what = f"{would}appended" if copied.is_new else "found (it is there already)"
        console.info(
            f"filter: fold {copied.number} {what} in {splits}: fold {fold} with {len(copied.train)} of "
            f"{len(copied.train) + len(copied.dropped)} training cases, the same validation cases"
        )
        if copied.val_asked:
            console.warn(
                f"not dropped: {counted(len(copied.val_asked), 'validation case')} ({console.some(copied.val_asked)})"
            )
        if copied.unlisted:
            console.warn(
                f"{len(copied.unlisted)} training cases have no score and are kept ({console.some(copied.unlisted)})"
            )
        if copied.unknown:
            console.warn(f"{len(copied.unknown)} dropped cases are not in fold {fold} ({console.some(copied.unknown)})")
    if reference is not None:
        console.info(
            f"filter: {reference.folder} {would}written: {counted(len(reference.case_ids), 'case')} by reference"
        )
        if reference.unlisted:
            console.warn(f"{len(reference.unlisted)} of its cases have no score ({console.some(reference.unlisted)})")
        if reference.unusable:
            console.warn(
                f"left out as faulty: {counted(len(reference.unusable), 'case')} ({console.some(reference.unusable)})"
            )
