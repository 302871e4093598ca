"""`auvtool train`."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auvtool import console
from auvtool.cli.case_ids import parse_case_ids
from auvtool.cli.loss_options import refuse_idle_loss_options
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Device, DryRun, Force, Jobs, Seed, is_typed
from auvtool.errors import CasesFailed, InputError, UsageError
from auvtool.plural import counted

if TYPE_CHECKING:
    from auvtool.cases import CaseProblem
    from auvtool.training.session import Outcome, Request


class Loss(StrEnum):
    """The loss to train with."""

    DUO = "duo"
    CLASSWISE = "classwise"
    PLAIN = "plain"


class Backbone(StrEnum):
    """The network to train."""

    NNUNET = "nnunet"
    SWIN_UNETR = "swin-unetr"
    UMAMBA = "umamba"
    UMAMBA_ENC = "umamba-enc"


class DenoiseForm(StrEnum):
    """What denoising makes of a label y."""

    PAPER = "paper"
    OFFICIAL = "official"


class Amp(StrEnum):
    """Precision of the network's forward pass."""

    BF16 = "bf16"
    FP16 = "fp16"
    OFF = "off"


@one_run_at_a_time(lambda options: options["output"])
def train(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="An nnU-Net raw data set; its scans stay there.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Results folder to write.")],
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="Keep list of `filter`, or ids one a line; '-' is standard input."),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            help="Folder for nnU-Net's raw, preprocessed and results; by default the nnUNet_* variables if DATASET "
            "lies in nnUNet_raw, else nnUNet_workspace beside RUN.",
        ),
    ] = None,
    configuration: Annotated[
        str,
        typer.Option("-c", "--configuration", metavar="NAME", help="Configuration of the plans: 2d, 3d_fullres, ..."),
    ] = "3d_fullres",
    plans: Annotated[str, typer.Option("--plans", metavar="NAME", help="Name of nnU-Net's plans.")] = "nnUNetPlans",
    backbone: Annotated[
        Backbone,
        typer.Option(
            "--backbone",
            help="nnunet: the network of the plans, plain or residual. swin-unetr: MONAI's version 2, patch sides "
            "rounded up to multiples of 32 (needs auvtool[monai]). umamba: residual U-Net with a Mamba at the "
            "bottleneck. umamba-enc: with Mamba after each stage of the encoder (needs mamba-ssm and a GPU for patches "
            "over 262144 voxels).",
        ),
    ] = Backbone.NNUNET,
    fold: Annotated[
        int | None, typer.Option("--fold", min=0, help="nnU-Net's fold (0 if not given); its val cases stay.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option("--folds", metavar="N,N", help="all: folds 0 to 4 one after the other; or some of them, as 0,2."),
    ] = None,
    val_cases: Annotated[
        str | None,
        typer.Option(
            "--val-cases",
            metavar="IDS",
            help="Validate on these cases and train on all others: ids with commas, or a file.",
        ),
    ] = None,
    loss: Annotated[
        Loss,
        typer.Option(
            "--loss",
            help="duo: Dice and BCE of each class, weighted and denoised (eqs. 10, 11); classwise: the same without "
            "weights and denoising; plain: nnU-Net's own.",
        ),
    ] = Loss.DUO,
    reweight: Annotated[
        bool, typer.Option("--reweight/--no-reweight", help="Weigh classes by 1 / (1 + alpha S) (eq. 11).")
    ] = True,
    denoise: Annotated[
        bool, typer.Option("--denoise/--no-denoise", help="Subtract the estimated noise from labels (eq. 10).")
    ] = True,
    denoise_form: Annotated[
        DenoiseForm, typer.Option("--denoise-form", help="paper: y - e n (eq. 10); official: y (1 - n), as released.")
    ] = DenoiseForm.PAPER,
    static_weights: Annotated[
        Path | None,
        typer.Option(
            "--static-weights",
            help="Weigh by each class's mean S in a table of `score --preset paper`, not by the logits'.",
        ),
    ] = None,
    class_weights: Annotated[
        Path | None,
        typer.Option("--class-weights", help="Table or JSON of weights by class name or id, times the others."),
    ] = None,
    scale_grad: Annotated[
        bool, typer.Option("--scale-grad/--no-scale-grad", help="Let the gradient through S; the paper does not.")
    ] = False,
    alpha: Annotated[float, typer.Option("--alpha", min=0, help="Strength of the weights.")] = 0.5,
    beta: Annotated[float, typer.Option("--beta", min=0, max=1, help="Share of Dice; the rest is BCE.")] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Length of the training.")] = 100,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Batches an epoch.")] = 250,
    val_iterations: Annotated[
        int | None,
        typer.Option("--val-iterations", min=1, help="Validation batches an epoch; by default a fifth as many."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Cases in a batch, instead of the planned number.")
    ] = None,
    patch_size: Annotated[
        str | None,
        typer.Option("--patch-size", metavar="D,H,W", help="Sides of a patch in voxels, instead of the planned ones."),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option("--features", min=1, help="Channels of the first stage (nnU-Net and U-Mamba 32, Swin-UNETR 48)."),
    ] = None,
    lr: Annotated[float, typer.Option("--lr", help="Initial learning rate.")] = 0.01,
    amp: Annotated[
        Amp | None, typer.Option("--amp", help="Precision; by default off on a CPU, nnU-Net's fp16 on a GPU.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    gpus: Annotated[
        int, typer.Option("--gpus", min=1, help="GPUs that share each batch (with --device cpu: processes).")
    ] = 1,
    compile: Annotated[  # noqa: A002  # as the option is called
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile; by default off on a CPU, nnU-Net's on a GPU."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of one process.")] = 1,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Augmentation processes; by default 0 on a CPU, nnU-Net's own on a GPU."),
    ] = None,
    jobs: Jobs = 1,
    validate: Annotated[
        bool | None,
        typer.Option("--validate/--no-validate", help="In the end predict the val cases whole; default: on a GPU."),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Train nnU-Net on the cases of a keep list, with the DUO loss, its base, or nnU-Net's own.

    nnU-Net plans and preprocesses all cases once; the keep list becomes one more fold of splits_final.json, with the
    val cases untouched. RUN is a results folder that stock nnUNetv2_predict reads, without auvtool unless --backbone is
    another than nnunet. The same command again goes on from the last epoch. Prints the path of the final checkpoint.

    \b
      auvtool train Dataset004_Hippocampus --keep K.csv -o RUN --device cuda
      auvtool train Dataset004_Hippocampus -o BASE --loss plain --folds all
      auvtool train Dataset004_Hippocampus --keep K.csv -o TRY --epochs 2 --iterations 10 --features 8 --batch-size 2
    """
    refuse_idle_loss_options(context, loss.value, reweight=reweight, denoise=denoise)
    if is_typed(context, "fold") and is_typed(context, "val_cases"):
        raise UsageError("--val-cases: expected no --fold, whose val cases are others, got both; leave one out")

    from auvtool.dataset import open_dataset, require_labels
    from auvtool.training.class_table import given_weights, mean_scales
    from auvtool.training.recipe import Recipe
    from auvtool.training.session import Request, look_ahead

    data = require_labels(open_dataset(dataset))
    if not data.cases:
        raise InputError(dataset, expected="cases with a label", found="none", cure="add the labels")
    recipe = Recipe(
        configuration=configuration,
        plans_name=plans,
        backbone=backbone.value,
        # DUO without either of its parts.
        loss="plain" if loss is Loss.PLAIN else "duo",
        reweight=reweight and loss is not Loss.CLASSWISE,
        denoise=denoise and loss is not Loss.CLASSWISE,
        alpha=alpha,
        beta=beta,
        epochs=epochs,
        iterations=iterations,
        # nnU-Net's own proportion: 50 to 250.
        val_iterations=val_iterations or max(1, iterations // 5),
        batch_size=batch_size,
        patch_size=_sides(patch_size),
        features=features,
        lr=lr,
        seed=seed,
        denoise_form=denoise_form.value,
        scale_gradient=scale_grad,
        static_scales=None if static_weights is None else mean_scales(static_weights, data.classes),
        class_weights=None if class_weights is None else given_weights(class_weights, data.classes),
        amp=None if amp is None else amp.value,
    )
    request = Request(
        dataset=data,
        run=output,
        recipe=recipe,
        kept=_kept(keep, data),
        fold=fold or 0,
        val_cases=parse_case_ids(val_cases, "--val-cases"),
        workspace=workspace,
        device=device,
        n_processes=gpus,
        compile=compile,
        threads=threads,
        augmentation_workers=workers,
        jobs=jobs,
        validate=device != "cpu" if validate is None else validate,
        force=force,
    )
    requests = _one_a_fold(request, folds, has_fold=fold is not None)
    # A fold that there is not is refused before the first one is trained.
    outlooks = [look_ahead(one) for one in requests] if dry_run or len(requests) > 1 else []
    if dry_run:
        for one, outlook in zip(requests, outlooks, strict=True):
            _print_outlook(one, outlook)
        return
    console.info(f"training on {device}; nnU-Net's own output goes to {output}/fold_*/nnunet_output.log")
    outcomes = []
    for one in requests:
        outcomes.append(_train_fold(one))
        print(outcomes[-1].checkpoint)
    tables = [path for path in (keep, static_weights, class_weights) if path is not None]
    _write_manifest(request, outcomes, tables)
    lost = {problem.case_id: problem for outcome in outcomes for problem in outcome.problems}
    _report_failures((*data.problems, *lost.values()), output)


def _one_a_fold(request: "Request", folds: str | None, *, has_fold: bool) -> "list[Request]":
    """The request for each fold that --folds names."""
    if folds is None:
        return [request]
    if has_fold or request.val_cases is not None:
        raise UsageError("--folds: expected neither --fold nor --val-cases beside it, got one of them; leave one out")
    try:
        numbers = list(range(5)) if folds == "all" else [int(number) for number in folds.split(",")]
    except ValueError as error:
        raise UsageError(f"--folds: expected all, or numbers like 0,2, got {folds}; correct it") from error
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--folds: expected each fold once, got {folds}; correct it")
    # --force clears the run before its first fold.
    return [replace(request, fold=number, force=request.force and not place) for place, number in enumerate(numbers)]


def _train_fold(request: "Request") -> "Outcome":
    from auvtool.training.session import train as run_training

    epochs = request.recipe.epochs
    with console.progress("epochs", epochs) as progress:

        def on_epoch(row: dict[str, Any]) -> None:
            while progress.done <= row["epoch"]:  # of a resumed run, the first ones are done
                progress.advance(_epoch_line(row))
            console.detail(_epoch_line(row))

        outcome = run_training(request, say=console.info, on_epoch=on_epoch)
    if outcome.resumed_at == epochs:
        console.info(f"{outcome.checkpoint.parent}: nothing to do, done before: {counted(epochs, 'epoch')}")
    return outcome


def _sides(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(side) for side in text.lower().replace("x", ",").split(","))
    except ValueError as error:
        raise UsageError(f"--patch-size: expected whole numbers like 96,96,96, got {text}; correct it") from error


def _kept(path: Path | None, data: Any) -> list[str] | None:
    """The data set's cases that the keep list keeps."""
    if path is None:
        return None
    from auvtool.keep_list import read_keep_list

    keep_list = read_keep_list(path)
    ids = [case.case_id for case in data.cases]
    known = {*ids, *(problem.case_id for problem in data.problems)}
    unknown = sorted((keep_list.kept | (keep_list.dropped or frozenset())) - known)
    if unknown:
        raise InputError(
            path,
            expected=f"cases of {data.name}",
            found=console.some(unknown),
            cure="give the keep list of this data set",
        )
    if keep_list.dropped is not None:
        not_judged = len([case_id for case_id in ids if case_id not in keep_list.kept | keep_list.dropped])
        if not_judged:
            console.warn(f"kept without being in the keep list: {counted(not_judged, 'case')}")
    return [case_id for case_id in ids if keep_list.keeps(case_id)]


def _epoch_line(row: dict[str, Any]) -> str:
    dice = " ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in row["pseudo_dice"].items())
    return f"epoch {row['epoch']}: loss {row['train_loss']:.4f} val {row['val_loss']:.4f} pseudo Dice {dice}"


def _print_outlook(request: "Request", outlook: Any) -> None:
    fold, recipe = outlook.fold, request.recipe
    patch = "planned by nnU-Net" if outlook.patch_size is None else " x ".join(map(str, outlook.patch_size))
    batch = "planned by nnU-Net" if outlook.batch_size is None else outlook.batch_size
    unusable = f", {len(request.dataset.problems)} that cannot be used" if request.dataset.problems else ""
    print(f"data set     {request.dataset.name}, {len(request.dataset.cases)} labelled cases{unusable}")
    print(f"fold         {fold.number}: {len(fold.train)} to train on, {len(fold.val)} to validate on")
    print(f"dropped      {len(fold.dropped)} by the keep list{': ' if fold.dropped else ''}{', '.join(fold.dropped)}")
    print(f"patch        {patch}, batch {batch}, configuration {recipe.configuration}, backbone {recipe.backbone}")
    print(f"length       {counted(recipe.epochs, 'epoch')} of {recipe.iterations} + {recipe.val_iterations} batches")
    print(f"loss         {recipe.loss}{_loss_options(recipe)}")
    print(f"workspace    {outlook.workspace.preprocessed.parent}")
    print(f"output       {request.run}{' (goes on from its last epoch)' if outlook.is_resumed else ''}")


def _loss_options(recipe: Any) -> str:
    if recipe.loss == "plain":
        return ""
    of_what = "" if recipe.static_scales is None else ", of a table"
    weights = f"weights with alpha {recipe.alpha}{of_what}" if recipe.reweight else "no weights"
    times = "" if recipe.class_weights is None else " times class weights"
    return f", {weights}{times}, {'with' if recipe.denoise else 'without'} noise head, beta {recipe.beta}"


def _write_manifest(request: "Request", outcomes: "Sequence[Outcome]", tables: Sequence[Path]) -> None:
    from auvtool.manifest import input_digest, write_manifest

    folds = [outcome.fold for outcome in outcomes]
    lost = {problem.case_id for outcome in outcomes for problem in outcome.problems}
    digests = [input_digest(outcome.checkpoint).removeprefix("sha256:") for outcome in outcomes]
    write_manifest(
        request.run,
        command="train",
        options={
            **request.recipe.to_dict(),
            "fold": folds[0].number if len(folds) == 1 else [fold.number for fold in folds],
            "device": request.device,
            "gpus": request.n_processes,
            "compile": request.compile,
            "threads": request.threads,
            "workers": request.augmentation_workers,
            "validate": request.validate,
        },
        inputs=[request.dataset.folder, *tables],
        counts={
            "train": sum(len(fold.train) for fold in folds),
            "val": sum(len(fold.val) for fold in folds),
            "dropped": sum(len(fold.dropped) for fold in folds),
            "failed": len(request.dataset.problems) + len(lost),
        },
        model_sha256=" ".join(digests),
    )


def _report_failures(problems: "tuple[CaseProblem, ...]", output: Path) -> None:
    from auvtool.failures import failure_row, failures_path, write_failures

    for item in problems:
        console.error(f"{item.case_id}: {item.error}")
    beside = failures_path(output)
    write_failures([failure_row(item.case_id, "train", item.error) for item in problems], beside)
    if problems:
        raise CasesFailed(f"trained, but without {counted(len(problems), 'case')} that cannot be used; see {beside}")
