"""`auvtool score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.atomic import is_stream
from auvtool.cli.options import Force, Format, Output, Seed
from auvtool.errors import UsageError
from auvtool.schema import SCORES, Row
from auvtool.tables import STANDARD_STREAM, check_output, write_table

if TYPE_CHECKING:
    from auvtool.scoring import ScaleOptions


def score(
    features: Annotated[list[Path], typer.Argument(metavar="F.h5", help="Features file that extract wrote.")],
    *,
    output: Output = STANDARD_STREAM,
    preset: Annotated[
        Literal["paper", "official"],
        typer.Option("--preset", help="The paper's equations as written, or its authors' released arithmetic."),
    ] = "paper",
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
        typer.Option("--unfolding", help="Axis kept as rows (d: slices); mean: the mean scale of the three."),
    ] = None,
    aggregate: Annotated[
        Literal["mean", "sum"] | None, typer.Option("--aggregate", help="A case's scale from those of its classes.")
    ] = None,
    classes: Annotated[
        str, typer.Option("--classes", metavar="A,B", help="Names or ids of the classes to use; all by default.")
    ] = "",
    quantifier: Annotated[
        Literal["auv", "agreement", "random"],
        typer.Option("--quantifier", help="auv; agreement: 1 - Dice of the extractor's mask; random: a control."),
    ] = "auv",
    seed: Seed = 0,
    table_format: Format = None,
    force: Force = False,
) -> None:
    """Score features: a scale and an AUV for each class and for each whole case.

    The scale S (eq. 5) is high where a case's maps are rich; its AUV (eq. 6) lies between 0, the most certain case of
    the file, and 1, the most uncertain. Preset paper: squared energy, mean over the classes present, absent and flat
    maps have no scale. Preset official: linear energy, sum over the classes, an absent map scores 1. An option given
    beside a preset wins over it. On a terminal the cases are printed as a table, the most uncertain first.

    \b
      auvtool score F.h5 -o S.csv
      auvtool score F.h5 --preset official --format jsonl | jq 'select(.class_name == "all")'
      auvtool score F.h5 --classes tumour --of probabilities --center -o S.csv
    """
    if len(features) > 1:
        raise UsageError(
            f"F.h5: expected one file, got {len(features)}; join them first: auvtool merge F1.h5 F2.h5 -o F.h5"
        )
    if features[0] == STANDARD_STREAM:
        raise UsageError("F.h5: expected a file, got '-'; HDF5 cannot be piped")
    check_output(output, requested=table_format, force=force)

    from auvtool.feature_store import FeatureFile
    from auvtool.scoring import scale_options, score_features

    options = scale_options(preset, energy=energy, center=center, of=of, unfolding=unfolding, aggregate=aggregate)
    wanted = [name.strip() for name in classes.split(",") if name.strip()]
    with FeatureFile(features[0]) as file:
        rows = score_features(file, options, classes=wanted, quantifier=quantifier, seed=seed)
        weights = file.header.weights_sha256
    _say_what_was_seen(rows, options if quantifier == "auv" else None)
    if console.wants_reading(output, table_format):
        console.print_table(_ranked(rows), ("rank", "case", "auv", "scale", "status", "n_slices", "volume_ml"))
        return
    write_table(rows, SCORES, output, requested=table_format, force=force)
    if output != STANDARD_STREAM and not is_stream(output):
        from auvtool.manifest import write_manifest

        chosen = vars(options) if quantifier == "auv" else {"seed": seed}
        write_manifest(
            output,
            command="score",
            options={"quantifier": quantifier, "classes": wanted, **chosen},
            inputs=features,
            counts={"cases": sum(row["class_id"] is None for row in rows), "rows": len(rows)},
            model_sha256=weights,
        )


def _say_what_was_seen(rows: list[Row], options: "ScaleOptions | None") -> None:
    from auvtool.scoring import confound

    maps = [row for row in rows if row["class_id"] is not None]
    cases = [row for row in rows if row["class_id"] is None]
    names = ", ".join(dict.fromkeys(str(row["class_name"]) for row in maps))
    absent, flat = (sum(row["status"] == status for row in maps) for status in ("absent", "flat"))
    console.info(
        f"score: {len(cases)} cases, {len(maps) // len(cases)} classes ({names}); {absent} absent, {flat} flat"
    )
    if options is not None:
        centring = "centred" if options.center else "uncentred"
        console.info(
            f"score: preset {options.preset}: {options.energy} energy, {centring}, of {options.of}, "
            f"unfolding {options.unfolding}, {options.aggregate} over classes"
        )
    unplaced = [str(row["case"]) for row in cases if row["auv"] is None]
    if unplaced:
        console.warn(f"{len(unplaced)} cases have no AUV ({', '.join(unplaced[:5])}{', ...' if unplaced[5:] else ''})")
    by_volume, by_depth = confound(rows, "volume_ml"), confound(rows, "n_slices")
    console.info(
        f"score: Spearman of AUV with volume {_signed(by_volume)}, with number of slices {_signed(by_depth)} "
        "(near 1 or -1: a filter by AUV would choose by size)"
    )


def _signed(correlation: float | None) -> str:
    return "not defined" if correlation is None else f"{correlation:+.2f}"


def _ranked(rows: list[Row]) -> list[Row]:
    """Whole cases, the most uncertain first, those without an AUV last."""
    cases = [row for row in rows if row["class_id"] is None]
    cases.sort(key=lambda row: -row["auv"] if isinstance(row["auv"], float) else 2.0)
    return [{"rank": rank, **row} for rank, row in enumerate(cases, start=1)]
