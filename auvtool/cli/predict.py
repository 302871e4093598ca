"""`auvtool predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auvtool import console
from auvtool.cli.case_ids import parse_case_ids
from auvtool.cli.options import Device, DryRun, Force, KeepGoing, TrustCheckpoint
from auvtool.errors import CasesFailed

if TYPE_CHECKING:
    from auvtool.prediction import Model, Predictions
    from auvtool.schema import Row


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Results folder of `train`, or of nnU-Net.")],
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of images named CASE_0000.nii.gz, or a raw data set.")
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="P", help="Folder of label maps to write.")],
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="File in each fold.")] = "checkpoint_final.pth",
    folds: Annotated[
        str | None, typer.Option("--folds", help="Numbers with commas; by default all that have the checkpoint.")
    ] = None,
    cases: Annotated[
        str | None, typer.Option("--cases", help="Only these cases: ids with commas, or a file of them.")
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Average over mirrored images, as nnU-Net does; 8 times slower. Default: on a GPU.",
        ),
    ] = None,
    trust_checkpoint: TrustCheckpoint = False,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of one process.")] = 1,
    keep_going: KeepGoing = True,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Predict label maps with a trained network, through nnU-Net's own predictor.

    Cases that have a label map in P are skipped, so that the same command goes on where it was stopped; --force
    predicts them again. Checkpoints are read without running code from them. Prints P.

    \b
      auvtool predict RUN Dataset004_Hippocampus/imagesTs -o P
      auvtool predict RUN Dataset004_Hippocampus -o P --cases hippocampus_001,hippocampus_003 --no-mirror
    """
    from auvtool.nnunet_run import find_checkpoints
    from auvtool.prediction import failure_row, find_images, load_model, nnunet_process
    from auvtool.prediction import predict as run_prediction

    case_ids = parse_case_ids(cases, "--cases")
    checkpoints = find_checkpoints(run, name=checkpoint, folds=folds.split(",") if folds else None)
    with nnunet_process(threads):
        model = load_model(run, checkpoints, device=device, mirror=mirror, trust=trust_checkpoint)
    found, problems = find_images(images, file_ending=model.file_ending, n_channels=model.n_channels, case_ids=case_ids)
    if dry_run:
        there = sum((output / (case.case_id + model.file_ending)).exists() for case in found)
        print(f"model        {', '.join(str(path) for path in checkpoints)}")
        print(f"cases        {len(found)}, of which {there} are predicted; {len(problems)} cannot be")
        print(f"output       {output}")
        return
    with console.progress("predict", len(found)) as progress, nnunet_process(threads):
        result = run_prediction(model, found, output, force=force, keep_going=keep_going, on_case=progress.advance)
    if result.skipped:
        console.info(f"{len(result.skipped)} cases were predicted before")
    failures = [*result.failures, *(failure_row(item.case_id, item.error) for item in problems)]
    _write_manifest(model, result, run=run, images=images, output=output, n_failed=len(failures))
    print(output)
    _report_failures(failures, output, n_cases=len(found) + len(problems))


def _write_manifest(
    model: "Model", result: "Predictions", *, run: Path, images: Path, output: Path, n_failed: int
) -> None:
    from auvtool.manifest import write_manifest

    write_manifest(
        output,
        command="predict",
        options={
            "checkpoints": [str(path) for path in model.checkpoints],
            "mirror": model.mirror,
            "device": str(model.predictor.device),
        },
        inputs=[run / "plans.json", run / "dataset.json", images],
        counts={"predicted": len(result.done), "skipped": len(result.skipped), "failed": n_failed},
        model_sha256=model.sha256,
    )


def _report_failures(failures: "list[Row]", output: Path, *, n_cases: int) -> None:
    beside = output.with_name(output.name + ".failures.csv")
    if not failures:
        beside.unlink(missing_ok=True)  # of an earlier run
        return
    from auvtool.schema import FAILURES
    from auvtool.tables import write_table

    for row in failures:
        console.error(f"{row['case']}: {row['error']}")
    write_table(failures, FAILURES, beside, force=True)
    raise CasesFailed(f"{len(failures)} of {n_cases} cases could not be predicted; see {beside}")
