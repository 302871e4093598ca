"""`auvtool bench detect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.cli.case_ids import parse_case_ids
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Cluster, Device, Jobs, MaxMemory, Seed, names_of, workplace_of
from auvtool.errors import UsageError

if TYPE_CHECKING:
    from auvtool.benchmark.detect import DetectPlan
    from auvtool.case_extraction import CaseOutcome


@one_run_at_a_time(lambda options: options["output"])
def detect(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="nnU-Net raw data set, as clean as can be had.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to fill.")],
    extractor: Annotated[
        Literal["litemedsam", "litemedsam-random", "identity"],
        typer.Option("--extractor", help="Model that looks at the cases; the last two are controls."),
    ] = "litemedsam",
    image_input: Annotated[
        Literal["raw", "mask"], typer.Option("--input", help="Intensities as they are, or normalised by the label.")
    ] = "raw",
    prompt: Annotated[
        Literal["mask-box", "none"],
        typer.Option("--prompt", help="Boxes from the label; none: the decoder's own channels."),
    ] = "mask-box",
    cases: Annotated[
        str | None, typer.Option("--only", metavar="IDS", help="Draw from these cases: ids with commas, or a file.")
    ] = None,
    n_cases: Annotated[int | None, typer.Option("--cases", min=4, help="Cases to use, drawn blindly.")] = 60,
    n_copies: Annotated[int, typer.Option("--copies", min=1, help="Corrupt copies of each, one fault each.")] = 8,
    kinds: Annotated[
        str | None, typer.Option("--kinds", metavar="A,B", help="Faults to put in; all by default.")
    ] = None,
    max_slices: Annotated[int | None, typer.Option("--max-slices", min=1, help="Slices decoded of a case.")] = 4,
    shares: Annotated[
        str,
        typer.Option(
            "--shares",
            metavar="P,P",
            help="Shares of dirty cases in a draw; what compares cases with each other is measured at the middle one.",
        ),
    ] = "0.05,0.1,0.2",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Draws of which cases are dirty.")] = 20,
    search: Annotated[
        bool, typer.Option("--search", help="Measure every form of the scale S too (search.VARIANT.csv).")
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    jobs: Jobs = 1,
    cluster: Cluster = None,
    max_memory: MaxMemory = None,
) -> None:
    """Put known faults into copies of clean cases, and see which scores find them.

    Each case and each copy goes through the extractor once; the same features serve all scores and draws. A: each copy
    against its own case (paired). B: 5, 10 and 20 % dirty among clean, by kind of fault and mixed, in draws of which
    cases are dirty (detection): AUROC, average precision, precision at k, and the correlation with severity. A trained
    score (calibrated) is judged on cases and families of faults that it has not seen. Fills DIR with answer_key.csv, a
    features file a variant, the tables paired, detection and summary, a report in Markdown and a picture. The same
    command again goes on where it stopped; other extractors and inputs share the folder.

    \b
      auvtool bench detect Dataset004_Hippocampus -o B -j 2
      auvtool bench detect Dataset004_Hippocampus -o B --input mask -j 2
      auvtool bench detect Dataset004_Hippocampus -o B --extractor litemedsam-random -j 2
    """
    from auvtool.benchmark import detect as steps
    from auvtool.case_extraction import ExtractionSettings
    from auvtool.dataset import open_dataset, require_labels

    workplace = workplace_of(context, jobs=jobs, cluster=cluster, max_memory=max_memory)
    chosen_shares = _shares(shares)
    data = require_labels(open_dataset(dataset))
    only = parse_case_ids(cases, "--only")
    plan = steps.plan_detect(
        data,
        output,
        ExtractionSettings(extractor=extractor, prompt=prompt, input=image_input, max_slices=max_slices, device=device),
        n_cases=n_cases,
        n_copies=n_copies,
        kinds=_kinds(kinds),
        seed=seed,
        only=only or (),
    )
    steps.claim_folder(plan)
    for problem in steps.write_key(plan):
        console.detail(problem)
    wanted = steps.extraction_plan(plan, force=True)
    if not steps.features_are_there(plan, wanted):
        console.info(
            f"bench detect: {len(plan.clean)} cases and {len(wanted.dataset.cases) - len(plan.clean)} copies through "
            f"{extractor}, input {image_input}, prompt {prompt}; {len(wanted.finished)} done before"
        )
        with console.progress("bench detect", len(wanted.waiting())) as bar:

            def on_case(outcome: "CaseOutcome") -> None:
                bar.advance(outcome.case_id)
                if outcome.error is not None:
                    console.warn(str(outcome.error))

            steps.extract_features(wanted, workplace=workplace, on_case=on_case)
    text = _tables(plan, shares=chosen_shares, draws=draws, search=search)
    print(text, end="")
    console.info(f"bench detect: tables, pictures and this report are in {output}")


def _tables(plan: "DetectPlan", *, shares: list[float], draws: int, search: bool) -> str:
    from auvtool.benchmark import detect as steps
    from auvtool.detection_experiments import contaminated, paired, summary
    from auvtool.detection_methods import scale_search_methods
    from auvtool.detection_plot import plot_detection
    from auvtool.detection_report import detection_report
    from auvtool.experiment_schema import DETECTION, DETECTION_PAIRED, DETECTION_SUMMARY
    from auvtool.tables import write_table

    header, items = steps.read_items(plan)
    methods = steps.methods_of(header, items, seed=plan.seed)
    middle = shares[len(shares) // 2]
    found = contaminated(items, methods, draws=draws, shares=shares, data_set_shares=[middle], seed=plan.seed)
    of_levels = summary(found)

    def path(name: str, ending: str = "csv") -> Path:
        return plan.folder / f"{name}.{plan.variant}.{ending}"

    write_table(paired(items, methods, seed=plan.seed), DETECTION_PAIRED, path("paired"), force=True)
    write_table(list(found.rows), DETECTION, path("detection"), force=True)
    write_table(of_levels, DETECTION_SUMMARY, path("summary"), force=True)
    levels = [level for level in ("medium", "high", "low") if any(row["level"] == level for row in found.rows)]
    text = detection_report(of_levels, list(found.rows), level=levels[0], share=middle)
    steps.write_markdown(text, path("detection", "md"))
    for level in levels:
        plot_detection(
            path(f"detection_{level}", "svg"), list(found.rows), of_levels, level=level, share=middle, force=True
        )
    if search:
        forms = contaminated(
            items, scale_search_methods(header), draws=draws, shares=[middle], seed=plan.seed, resamples=200
        )
        write_table(summary(forms), DETECTION_SUMMARY, path("search"), force=True)
    return text


def _kinds(text: str | None) -> list[str]:
    from auvtool.corruption.kinds import KINDS

    names = names_of(text, "--kinds")
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise UsageError(f"--kinds: expected some of {', '.join(KINDS)}, got {', '.join(unknown)}; correct them")
    return names


def _shares(text: str) -> list[float]:
    try:
        shares = [float(share) for share in names_of(text, "--shares")]
    except ValueError as error:
        raise UsageError(f"--shares: expected numbers like 0.05,0.1, got {text}; correct them") from error
    if not all(0.0 < share < 1.0 for share in shares):
        raise UsageError(f"--shares: expected shares between 0 and 1, got {text}; correct them")
    return sorted(shares)
