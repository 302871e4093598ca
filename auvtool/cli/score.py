"""`auvtool score`."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Force, Format, Output, check_plot_option, names_of, refuse_input_as_output
from auvtool.errors import UsageError
from auvtool.quantifiers import QUANTIFIERS, QuantifierName
from auvtool.schema import EXPLANATION, METRICS, SCORES, Row
from auvtool.tables import STANDARD_STREAM, check_output, read_table, write_table

if TYPE_CHECKING:
    from auvtool.case_features import CaseFeatures
    from auvtool.scoring import Scoring

_RANKED = ("rank", "case", "auv", "value", "status", "n_slices", "volume_ml")
_RANKED_WITH_REASON = ("rank", "case", "auv", "value", "reason")
_FEW_CASES = 8  # fewer do not say what is usual
# The columns of an explanation that a person reads, in two tables that fit a narrow terminal.
_PLACE = {
    "class_name": "class",
    "status": "status",
    "value": "value",
    "median": "median",
    "auv": "auv",
    "rank": "rank",
    "push": "push",
}
_MAKING = {
    "class_name": "class",
    "volume_percentile": "volume %",
    "depth_percentile": "slices %",
    "n_singular_values": "r",
    "n_for_90": "r90",
    "energy_1": "p1",
    "energy_2": "p2",
    "energy_3": "p3",
}


@one_run_at_a_time(lambda options: options["output"], lambda options: options["plot"])
def score(
    features: Annotated[list[Path], typer.Argument(metavar="F.h5", help="Features file that extract wrote.")],
    *,
    output: Output = STANDARD_STREAM,
    quantifier: Annotated[
        QuantifierName | None,
        typer.Option(
            "--quantifier",
            metavar="NAME",
            help=f"What to measure: {', '.join(QUANTIFIERS)}; auvtool info quantifiers says what each is. Default: "
            "deviation; auv with an option of the scale, --mechanism or --reference, and for features without classes.",
        ),
    ] = None,
    preset: Annotated[
        Literal["paper", "official"] | None,
        typer.Option(
            "--preset", help="The paper's score: auv by its equations, or by its authors' released arithmetic."
        ),
    ] = None,
    mechanism: Annotated[
        Literal["a", "b", "c", "d"] | None,
        typer.Option(
            "--mechanism",
            help="Of table 5: a raw input and all classes, b raw and --classes, c mask and all, d mask and --classes; "
            "refused where the features or --classes do not fit.",
        ),
    ] = None,
    energy: Annotated[
        Literal["squared", "linear"] | None, typer.Option("--energy", help="Energy of a singular value: s^2 or s.")
    ] = None,
    center: Annotated[
        bool | None, typer.Option("--center/--no-center", help="Subtract each row's mean before the singular values.")
    ] = None,
    of: Annotated[
        Literal["logits", "probabilities"] | None,
        typer.Option("--of", help="The maps before or after the softmax or sigmoid."),
    ] = None,
    unfolding: Annotated[
        Literal["d_hw", "h_dw", "w_dh", "mean"] | None,
        typer.Option("--unfolding", help="Axis kept as rows (d: slices); mean: the mean of the three."),
    ] = None,
    roi: Annotated[
        Literal["volume", "class-box"] | None,
        typer.Option("--roi", help="Singular values of the whole map, or of the box around the class region."),
    ] = None,
    aggregate: Annotated[
        Literal["mean", "sum"] | None, typer.Option("--aggregate", help="A case's value from those of its classes.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B", help="Names or ids of the classes to use; all by default.")
    ] = None,
    residualise: Annotated[
        str | None,
        typer.Option(
            "--residualise",
            metavar="A,B",
            help="Take the linear effect of volume, depth (slices) or spacing (slice distance) out before the AUV.",
        ),
    ] = None,
    two_sided: Annotated[
        bool, typer.Option("--two-sided", help="Uncertain is what lies far from the median, on either side.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", metavar="S.csv", help="Place the cases on the axis of these scores, not their own."
        ),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", metavar="M.csv", help="Cross-validated metrics, for --quantifier predicted-dice."),
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="CASE", help="Say how the number of one case came about.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw energy curves and AUV distribution (.svg, .png or .pdf)."),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", metavar="S.csv", help="With --plot: draw the distribution of these scores too."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of --quantifier random; 0 by default.")] = None,
    table_format: Format = None,
    force: Force = False,
) -> None:
    """Score features: a value and an AUV for each class and for each whole case.

    By default how far all that is stored of a case lies from what is usual in the data set (deviation), with the
    evidence that stands out as `reason`; of all scores that learn nothing it finds the most dirty cases (README). The
    paper's score is one flag away: --preset paper takes its scale S (eq. 5; squared energy, mean over the classes
    present, absent and flat maps have no scale), --preset official its authors' arithmetic (linear energy, sum over
    the classes, an absent map scores 1). An option given beside a preset wins over it. Whatever is measured, its AUV
    (eq. 6) lies between 0, the most certain case of the file, and 1, the most uncertain. On a terminal the cases are
    printed as a table, the most uncertain first.

    \b
      auvtool score F.h5 -o S.csv
      auvtool score F.h5 --preset paper -o AUV.csv
      auvtool score F.h5 --preset official --format jsonl | jq 'select(.class_name == "all")'
      auvtool score F.h5 --classes tumour --of probabilities --center -o AUV.csv
      auvtool score F.h5 --quantifier mahalanobis --residualise volume,depth -o MD.csv
      auvtool score F.h5 --explain case_0007                          (why is this case where it is?)
      auvtool score F.new.h5 --reference AUV.csv                      (new cases on the old axis)
      auvtool score F.h5 --mechanism d --classes tumour -o Sd.csv --plot Sd.svg --beside Sa.csv --beside Sb.csv
    """
    _check_features(features)
    _check_pictures(output, plot, beside or [], force=force)
    check_output(output, requested=table_format, force=force)
    refuse_input_as_output(output, [path for path in (*features, reference, metrics, *(beside or ())) if path])

    from auvtool.feature_store import FeatureFile
    from auvtool.quantification import read_cases
    from auvtool.score_options import ScaleChoices, default_quantifier, score_options
    from auvtool.scoring import score_cases

    scale: ScaleChoices = {
        "energy": energy,
        "center": center,
        "of": of,
        "unfolding": unfolding,
        "roi": roi,
        "aggregate": aggregate,
    }
    with FeatureFile(features[0]) as file:
        header = file.header
    if quantifier is None:
        quantifier = default_quantifier(
            header, scale=scale, preset=preset, mechanism=mechanism, axis_given=reference is not None
        )
    _check_companions(quantifier, metrics, reference, residualised=residualise is not None, explain=explain)
    options = score_options(
        quantifier,
        preset=preset,
        scale=scale,
        mechanism=mechanism,
        classes=names_of(classes, "--classes"),
        residualise=names_of(residualise, "--residualise"),
        two_sided=two_sided,
        seed=seed,
    )
    others = {path.stem: _whole_case_auv(path) for path in beside or ()}
    with FeatureFile(features[0]) as file:
        cases = read_cases(file)
    scoring = score_cases(
        cases,
        header,
        options,
        metrics=() if metrics is None else read_table(metrics, METRICS),
        reference=() if reference is None else read_table(reference, SCORES),
    )
    _say_what_was_seen(scoring)
    rows = scoring.rows()
    explanation = [] if explain is None else _explanation(scoring, cases, explain)
    if options.facts.spectral and unfolding == "mean" and (explain is not None or plot is not None):
        console.info("score: energies are shown of d_hw, the first of the three unfoldings")
    if plot is not None:
        own = _own_name(output, quantifier)
        _draw(plot, scoring, cases, own=own, others=others, case_id=explain, force=force)
    if console.wants_reading(output, table_format):
        if explain is None:
            console.print_table(_ranked(rows), _RANKED_WITH_REASON if scoring.quantified.reasons else _RANKED)
        else:
            for columns in (_PLACE, _MAKING):
                shown = [{short: row.get(name) for name, short in columns.items()} for row in explanation]
                told = [short for short in columns.values() if any(row[short] is not None for row in shown)]
                console.print_table(shown, tuple(told))
        return
    if explain is None:
        write_table(rows, SCORES, output, requested=table_format, force=force)
    else:
        write_table(explanation, EXPLANATION, output, requested=table_format, force=force)
    if not is_piped(output):
        from auvtool.manifest import write_manifest

        write_manifest(
            output,
            command="score",
            options={**asdict(options), "reference": reference, "metrics": metrics, "explain": explain, "plot": plot},
            inputs=[path for path in (features[0], reference, metrics, *(beside or [])) if path is not None],
            counts={"cases": len(cases), "rows": len(explanation or rows)},
            model_sha256=header.weights_sha256,
        )


def _check_features(features: list[Path]) -> None:
    if len(features) > 1:
        raise UsageError(
            f"F.h5: expected one file, got {len(features)}; join them first: auvtool merge F1.h5 F2.h5 -o F.h5"
        )
    if features[0] == STANDARD_STREAM:
        raise UsageError("F.h5: expected a file, got '-'; HDF5 cannot be piped")


def _check_companions(
    quantifier: QuantifierName,
    metrics: Path | None,
    reference: Path | None,
    *,
    residualised: bool,
    explain: str | None,
) -> None:
    """Refuse tables that the other options leave without a use, or that they lack."""
    if (metrics is not None) != (quantifier == "predicted-dice"):
        found = "none" if metrics is None else f"it beside {quantifier}"
        raise UsageError(
            f"--metrics: expected it with --quantifier predicted-dice only, got {found}; give both or none"
        )
    if reference is None:
        return
    if QUANTIFIERS[quantifier].of_data_set:
        raise UsageError(
            f"--reference: expected a quantifier that two data sets share, got {quantifier}; its values depend on the "
            "other cases of the file: merge the features and score them together"
        )
    if residualised:
        raise UsageError(
            "--reference: expected no --residualise beside it, got one; the fit belongs to the data set: merge the "
            "features and score them together"
        )
    if explain is not None:
        raise UsageError(
            "--reference: expected no --explain beside it, got one; medians and places are those of one file: merge "
            "the features and explain the case there"
        )


def _check_pictures(output: Path, plot: Path | None, beside: list[Path], *, force: bool) -> None:
    """Refuse a plot that would replace the table, or in which one scoring would hide another."""
    if beside and plot is None:
        raise UsageError("--beside: expected --plot beside it, got none; name the file to draw")
    if plot is not None:
        check_plot_option(plot, output, force=force)
    names = [path.stem for path in beside] + ([] if output == STANDARD_STREAM else [output.stem])
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--beside: expected files of different names, got {twice} twice; they label the plot")


def _own_name(output: Path, quantifier: QuantifierName) -> str:
    return quantifier if is_piped(output) else output.stem


def _whole_case_auv(path: Path) -> list[float]:
    return [float("nan") if row["auv"] is None else float(row["auv"]) for row in _whole_cases(read_table(path, SCORES))]


def _whole_cases(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["class_id"] is None]


def _say_what_was_seen(scoring: "Scoring") -> None:
    from auvtool.score_options import DEVIATIONS
    from auvtool.scoring import size_correlations

    *classes, whole = scoring.columns
    n_cases, options = len(scoring.case_ids), scoring.options
    counts = {
        status: sum(column.status.count(status) for column in classes) for status in ("absent", "flat", "undefined")
    }
    # What has no value of a class says nothing of classes.
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n or status == "absent")
    console.info(
        f"score: {n_cases} case{'s' * (n_cases != 1)}, {len(classes)} class{'es' * (len(classes) != 1)} "
        f"({console.some([column.class_name for column in classes], 10)})"
        + (f"; {said}" if options.facts.of_classes else "")
    )
    console.info(f"score: {options.quantifier}: {scoring.method}")
    if options.quantifier in DEVIATIONS and n_cases < _FEW_CASES:
        console.warn(
            f"{n_cases} cases hardly say what is usual in a data set; {options.quantifier} wants {_FEW_CASES} or more"
        )
    unplaced = [case_id for case_id, auv in zip(scoring.case_ids, whole.auv, strict=True) if math.isnan(auv)]
    if unplaced:
        console.warn(f"{len(unplaced)} of {n_cases} cases have no AUV ({console.some(unplaced)})")
    found = size_correlations(whole)
    (by_volume, volume_given), (by_depth, depth_given) = found["volume"], found["depth"]
    console.info(
        f"score: Spearman of AUV with volume {_signed(by_volume)} (given slices {_signed(volume_given)}), with number "
        f"of slices {_signed(by_depth)} (given volume {_signed(depth_given)}); near 1 or -1 a filter by AUV would "
        "choose by size"
    )


def _signed(correlation: float | None) -> str:
    return "not defined" if correlation is None else f"{correlation:+.2f}"


def _explanation(scoring: "Scoring", cases: "Sequence[CaseFeatures]", case_id: str) -> list[Row]:
    from auvtool.explanation import driving_class, explain

    rows = explain(scoring, cases, case_id)
    whole, driver = rows[-1], driving_class(rows)
    if whole["auv"] is None:
        console.info(f"score: {case_id}: no AUV ({whole['status']})")
    else:
        by = "" if driver is None else f"; {driver[0]} pushes it the most, towards {driver[1]}"
        console.info(
            f"score: {case_id}: AUV {whole['auv']:.3f}, place {whole['rank']} of {whole['n_ranked']} "
            f"(1 is the most uncertain){by}"
        )
    if reasons := scoring.quantified.reasons:
        said = reasons[scoring.case_ids.index(case_id)]
        console.info(f"score: {case_id}: {said or 'no evidence stands out by twice the usual spread'}")
    return rows


def _draw(
    path: Path,
    scoring: "Scoring",
    cases: "Sequence[CaseFeatures]",
    *,
    own: str,
    others: dict[str, list[float]],
    case_id: str | None,
    force: bool,
) -> None:
    """Energy curves where the quantifier has spectra, and the AUV of each scoring; the scoring at hand comes last."""
    import numpy as np

    from auvtool.plots import AuvDistributions, EnergyCurves, plot_scores
    from auvtool.quantification import map_spectra_of

    options, auv = scoring.options, scoring.whole_cases.auv
    distributions = {**{name: np.array(values) for name, values in others.items()}, own: auv}
    title = options.quantifier + (f", mechanism {options.mechanism}" if options.mechanism else "")
    index = None if case_id is None else scoring.case_ids.index(case_id)
    curves = None
    if options.facts.spectral:
        spectra = {
            column.class_name: [map_spectra_of(case, channel, options)[0] for case in cases]
            for column, channel in zip(scoring.columns, scoring.quantified.channels, strict=False)
        }
        curves = EnergyCurves(
            spectra,
            options.energy if options.quantifier == "auv" else "linear",
            options.eps_rule,
            {} if index is None else {name: of_cases[index] for name, of_cases in spectra.items()},
            case_id or "",
        )
    highlighted = {} if index is None else {own: float(auv[index])}
    shown = AuvDistributions(distributions, highlighted=highlighted, highlighted_case=case_id or "")
    plot_scores(path, curves, shown, title=title, force=force)


def _ranked(rows: list[Row]) -> list[Row]:
    """Whole cases, the most uncertain first, those without an AUV last."""
    cases = _whole_cases(rows)
    cases.sort(key=lambda row: -row["auv"] if isinstance(row["auv"], float) else float("inf"))
    return [{"rank": rank, **row} for rank, row in enumerate(cases, start=1)]
