"""`auvtool extract`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.cli.case_ids import parse_case_ids
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import (
    Cluster,
    Device,
    DryRun,
    Force,
    Jobs,
    KeepGoing,
    MaxMemory,
    TrustCheckpoint,
    workplace_of,
)
from auvtool.errors import CasesFailed, UsageError
from auvtool.plural import counted

if TYPE_CHECKING:
    from auvtool.case_extraction import CaseOutcome
    from auvtool.extraction_plan import ExtractionPlan

ExtractorName: TypeAlias = Literal[
    "litemedsam", "litemedsam-random", "identity", "medsam2", "segvol", "clip-driven", "anatomix", "nnunet"
]


@one_run_at_a_time(lambda options: options["output"])
def extract(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="nnU-Net raw data set, or a folder of images.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="F.h5", help="Features file to write.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="DIR", help="Labels; by default those of the data set.")
    ] = None,
    extractor: Annotated[
        ExtractorName,
        typer.Option(
            "--extractor",
            help="Foundation model; two controls: its network untrained, and the intensities themselves; or your own "
            "trained nnU-Net.",
        ),
    ] = "litemedsam",
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="PATH",
            help="Checkpoint; needed where no package carries the weights. Of nnunet a results folder, which stands "
            "for its first fold, or a checkpoint in it.",
        ),
    ] = None,
    trust_checkpoint: TrustCheckpoint = False,
    image_input: Annotated[
        Literal["raw", "mask"] | None,
        typer.Option(
            "--input",
            help="Intensities as they are, or normalised by the annotated foreground. By default mask for boxes of "
            "litemedsam and the controls, else raw.",
        ),
    ] = None,
    prompt: Annotated[
        Literal["mask-box", "class-name", "none"] | None,
        typer.Option(
            "--prompt",
            help="A box of each class from its label, the name of each class, or none (the decoder's own channels). By "
            "default what `auvtool info models` names first.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="TABLE", help="What to ask for each class_name, as prompt; empty leaves the class out."
        ),
    ] = None,
    feature: Annotated[
        Literal["logits", "penultimate"],
        typer.Option("--feature", help="Of nnunet: a logit for each class, or the features before its last layer."),
    ] = "logits",
    channel: Annotated[
        int, typer.Option("--channel", min=0, help="Image channel; a model sees one (nnunet all of them).")
    ] = 0,
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            metavar="LO,HI",
            help="Intensities that become black and white (medsam2, anatomix). By default -160,240 for CT, else "
            "percentiles; for anatomix the extremes.",
        ),
    ] = None,
    propagate: Annotated[
        bool,
        typer.Option("--propagate", help="Box each class on one slice and follow it through the volume (medsam2)."),
    ] = False,
    store: Annotated[
        Literal["spectrum", "maps", "both"],
        typer.Option("--store", help="Singular values (kilobytes a case), the maps (gigabytes), or both."),
    ] = "spectrum",
    slice_stride: Annotated[
        int, typer.Option("--slice-stride", min=1, help="Decode every N-th of the slices that carry a class.")
    ] = 1,
    max_slices: Annotated[
        int | None, typer.Option("--max-slices", min=1, help="Decode at most N slices a case, evenly chosen.")
    ] = None,
    amp: Annotated[
        Literal["off", "bf16"],
        typer.Option(
            "--amp", help="Mixed precision: bf16 is about twice as fast on a GPU or a CPU with AMX, and coarser."
        ),
    ] = "off",
    cases: Annotated[
        str | None, typer.Option("--cases", metavar="IDS", help="Only these cases: ids with commas, or a file of them.")
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Every N-th case from the I-th on; auto: from SLURM_ARRAY_TASK_ID and _COUNT.",
        ),
    ] = "1/1",
    device: Device = "cpu",
    jobs: Jobs = 1,
    cluster: Cluster = None,
    max_memory: MaxMemory = None,
    keep_going: KeepGoing = True,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Run a foundation model over every case and store what its decoded maps are made of.

    For each class that a label names, every slice that carries it is decoded with the box around it as prompt; the
    singular values of the class's map go to the features file, with the class's mean features, voxel statistics and
    how well the prompted mask agrees with the label. Finished cases wait in F.h5.parts, so the same command goes on
    after an interruption. Failed cases are listed in F.h5.failures.csv; the file then holds the others (exit 4).

    \b
      auvtool extract Dataset004_Hippocampus -o F.h5 -j 4
      auvtool extract Dataset003_Liver -o F.h5 --max-slices 16          (a CPU's patience)
      auvtool extract images/ --labels labels/ -o F.h5
      auvtool extract images/ --prompt none -o F.h5                     (no labels)
      auvtool extract Dataset003_Liver -o F.h5 --extractor medsam2 --weights MedSAM2_latest.pt
      auvtool extract Dataset003_Liver -o F.h5 --extractor segvol --weights SegVol_v1.pth
      auvtool extract Dataset003_Liver -o F.h5 --extractor nnunet --weights RUN
      auvtool extract Dataset003_Liver -o F.2.h5 --shard 2/8            (then auvtool merge F.*.h5 -o F.h5)
      auvtool extract Dataset003_Liver -o F.h5 -j 8 --max-memory 16GB   (as many at once as fit)
      auvtool extract Dataset003_Liver -o F.h5 --cluster file:s.json    (of dask scheduler --scheduler-file s.json)
    """
    if is_piped(output):
        raise UsageError(f"-o: expected a file, got {output}; HDF5 cannot stream, name a file (-o F.h5)")

    from auvtool.case_extraction import ExtractionSettings
    from auvtool.dataset import open_dataset
    from auvtool.extraction import run_extraction
    from auvtool.extraction_plan import map_bytes, parse_shard, plan_extraction
    from auvtool.extractors.class_prompts import read_class_prompts
    from auvtool.extractors.facts import facts_with
    from auvtool.extractors.model_options import ModelOptions, parse_window
    from auvtool.failures import failures_path

    workplace = workplace_of(context, jobs=jobs, cluster=cluster, max_memory=max_memory)
    model = ModelOptions(
        weights=weights,
        trust_checkpoint=trust_checkpoint,
        amp=amp,
        window=None if window is None else parse_window(window),
        propagate=propagate,
        feature=feature,
        class_prompts=() if prompts is None else tuple(read_class_prompts(prompts).items()),
    )
    facts = facts_with(extractor, model)
    prompt = prompt or facts.prompts[0]
    settings = ExtractionSettings(
        extractor=extractor,
        model=model,
        prompt=prompt,
        input=image_input or (facts.default_input if prompt == "mask-box" else "raw"),
        channel=channel,
        store=store,
        slice_stride=slice_stride,
        max_slices=max_slices,
        device=device,
    )
    plan = plan_extraction(
        open_dataset(dataset, labels=labels),
        settings,
        output,
        case_ids=parse_case_ids(cases, "--cases") or (),
        shard=parse_shard(shard),
        force=force,
    )
    _say_plan(plan)
    if facts.notice:
        console.warn(facts.notice)
    if dry_run:
        console.info(f"extract: {_said_of_size(map_bytes(plan))}; nothing was done")
        return
    with console.progress("extract", len(plan.waiting())) as bar:

        def on_case(outcome: "CaseOutcome") -> None:
            bar.advance(outcome.case_id)
            for warning in outcome.warnings:
                console.warn(warning)

        result = run_extraction(
            plan,
            workplace=workplace,
            keep_going=keep_going,
            force=force,
            on_case=on_case,
            on_worker_died=console.warn_of_killed_worker,
            on_written=lambda result: _write_manifest(plan, dataset, result.n_cases, len(result.failures)),
        )
    if result.n_cases:
        console.info(f"extract: {counted(result.n_cases, 'case')} in {output}")
    if result.failures:
        for row in result.failures:
            console.error(f"{row['case']}: {row['error']}")
        written = f"{output} holds the other {result.n_cases}" if result.n_cases else f"{output} is not written"
        raise CasesFailed(
            f"{len(result.failures)} of {result.n_cases + len(result.failures)} cases failed "
            f"({failures_path(output)}); {written}; the same command with --force tries the failed ones again"
        )


def _say_plan(plan: "ExtractionPlan") -> None:
    names = ", ".join(name for _, name in plan.header.channels[:8]) + (", ..." if len(plan.header.channels) > 8 else "")
    console.info(
        f"extract: {counted(len(plan.dataset.cases), 'case')} of {plan.dataset.name} ({names}) through "
        f"{plan.header.extractor}, input {plan.header.input}, prompt {plan.header.prompt}; "
        f"{len(plan.finished)} done before, {len(plan.problems)} not usable"
    )


def _said_of_size(n_bytes: int | None) -> str:
    """What a dry run says of the maps to store."""
    if n_bytes is None:
        return "maps would take an unknown size"
    if not n_bytes:
        return "no maps would be stored, some kilobytes a case"
    unit, name = next((one for one in ((1e9, "GB"), (1e6, "MB")) if n_bytes >= one[0]), (1e3, "kB"))
    return f"maps would take about {n_bytes / unit:.3g} {name}"


def _write_manifest(plan: "ExtractionPlan", folder: Path, n_cases: int, n_failed: int) -> None:
    from auvtool.manifest import write_manifest

    write_manifest(
        plan.output,
        command="extract",
        options=vars(plan.settings) | ({"notice": plan.facts.notice} if plan.facts.notice else {}),
        inputs=[folder],
        counts={"cases": n_cases, "failed": n_failed, "resumed": len(plan.finished)},
        model_sha256=plan.header.weights_sha256,
    )
