"""`auvtool predict`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auvtool import console
from auvtool.cli.case_ids import parse_case_ids
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Device, DryRun, Force, KeepGoing, TrustCheckpoint
from auvtool.errors import CasesFailed, InputError, UsageError
from auvtool.plural import counted
from auvtool.tables import STANDARD_STREAM

if TYPE_CHECKING:
    from auvtool.cases import Case
    from auvtool.prediction import Model


@one_run_at_a_time(lambda options: options["output"])
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Results folder of `train`, or of nnU-Net.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES",
            show_default=False,
            help="Folders of images named CASE_0000.nii.gz, raw data sets, image files, or lists of them: a .txt file, "
            "'-': stdin (the default).",
        ),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="P", help="Folder of label maps to write.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="FILE", help="Name of the checkpoint in each fold.")
    ] = "checkpoint_final.pth",
    folds: Annotated[
        str | None,
        typer.Option("--folds", metavar="N,N", help="Numbers with commas; by default all that have the checkpoint."),
    ] = None,
    cases: Annotated[
        str | None, typer.Option("--cases", metavar="IDS", help="Only these cases: ids with commas, or a file of them.")
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Write softmax maps too, as nnU-Net's --save_probabilities does; large."),
    ] = False,
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

    Cases that are predicted in P are skipped, so that the same command goes on where it was stopped; --force predicts
    them again, as it must where an image has changed. A list has one path a line. For a network of one channel, files
    that are named one by one need no _0000. With --probabilities each label map has CASE.npz and CASE.pkl beside it
    (regions: sigmoid), which nnUNetv2_ensemble reads. Checkpoints are read without running code from them. Prints P.

    \b
      auvtool predict RUN Dataset004_Hippocampus/imagesTs -o P
      auvtool predict RUN Dataset004_Hippocampus -o P --cases hippocampus_001,hippocampus_003 --no-mirror
      auvtool predict RUN scans/liver_7.nii.gz more.txt -o P --probabilities
      find scans -name '*_0000.nii.gz' | auvtool predict RUN - -o P
    """
    images = _given_images(images)
    if output.name in ("", ".."):  # its manifest and failures stand beside it
        raise UsageError(f"-o: expected a folder with a name of its own, got {output}; name one (-o P)")

    from auvtool.failures import failure_row, failures_path, write_failures
    from auvtool.nnunet_run import find_checkpoints
    from auvtool.prediction import is_predicted, load_model, nnunet_process, require_own_folder
    from auvtool.prediction import predict as run_prediction
    from auvtool.prediction_images import find_images

    require_own_folder(output)
    case_ids = parse_case_ids(cases, "--cases")
    checkpoints = find_checkpoints(run, name=checkpoint, folds=folds.split(",") if folds else None)
    with nnunet_process(threads):
        model = load_model(run, checkpoints, device=device, mirror=mirror, trust=trust_checkpoint)
    found, problems = find_images(images, file_ending=model.file_ending, n_channels=model.n_channels, case_ids=case_ids)
    _refuse_folder_of_images(output, found)
    if dry_run:
        there = sum(is_predicted(case, output, model.file_ending, probabilities=probabilities) for case in found)
        print(f"model        {', '.join(str(path) for path in checkpoints)}")
        print(f"cases        {len(found)}, of which {there} are predicted; {len(problems)} cannot be")
        print(f"output       {output}")
        return
    if problems and not keep_going:
        raise InputError(
            problems[0].case_id,
            expected="a usable case",
            found=f"'{problems[0].error}'",
            cure="leave it out, or run with --keep-going",
        )
    with console.progress("predict", len(found)) as progress, nnunet_process(threads):
        result = run_prediction(
            model,
            found,
            output,
            probabilities=probabilities,
            force=force,
            keep_going=keep_going,
            on_case=progress.advance,
        )
    if result.skipped:
        console.info(f"{counted(len(result.skipped), 'case')} predicted before")
    failures = [*result.failures, *(failure_row(item.case_id, "predict", item.error) for item in problems)]
    counts = {"predicted": len(result.done), "skipped": len(result.skipped), "failed": len(failures)}
    _write_manifest(model, found, run=run, images=images, output=output, probabilities=probabilities, counts=counts)
    beside = failures_path(output)
    write_failures(failures, beside)
    print(output)
    for row in failures:
        said = str(row["error"]).removeprefix(f"{row['case']}: ")  # of a file, the error names it too
        console.error(f"{row['case']}: {said}")
    if failures:
        n_cases = len(found) + len(problems)
        raise CasesFailed(f"{len(failures)} of {n_cases} cases could not be predicted; see {beside}")


def _given_images(images: list[Path] | None) -> list[Path]:
    if images:
        return images
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("IMAGES: expected a folder, images, or a list of them on standard input, got none; name some")
    return [STANDARD_STREAM]


def _write_manifest(
    model: "Model",
    cases: "list[Case]",
    *,
    run: Path,
    images: list[Path],
    output: Path,
    probabilities: bool,
    counts: dict[str, int],
) -> None:
    from auvtool.manifest import write_manifest

    folders = [path for path in images if path.is_dir()]
    write_manifest(
        output,
        command="predict",
        options={
            "images": images,
            "checkpoints": [str(path) for path in model.checkpoints],
            "mirror": model.mirror,
            "device": str(model.predictor.device),
            "probabilities": probabilities,
        },
        inputs=[run / "plans.json", run / "dataset.json", *folders],
        counts=counts,
        model_sha256=model.sha256,
        images=[] if len(folders) == len(images) else [file for case in cases for file in case.images if file.exists()],
    )


def _refuse_folder_of_images(output: Path, cases: "Sequence[Case]") -> None:
    """A label map beside an image would be taken for an image, or replace it.

    Raises:
        UsageError: images lie in `output`.
    """
    folder = output.resolve()
    inside = next((file for case in cases for file in case.images if file.parent.resolve() == folder), None)
    if inside is not None:
        raise UsageError(f"-o: expected another folder than that of the images, got {output}; name a new one (-o P)")
