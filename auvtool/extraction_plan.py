"""What a run of an extractor over a data set will do: cases, shards that are there already, disk space."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from auvtool.atomic import refuse_existing
from auvtool.case_extraction import CaseTask, ExtractionSettings, input_state, shard_path
from auvtool.case_features import FeatureHeader
from auvtool.cases import Case, CaseProblem, Dataset
from auvtool.dataset import require_labels
from auvtool.errors import InputError, OutputError, UsageError
from auvtool.extractors.class_prompts import prompts_of_classes
from auvtool.extractors.facts import ExtractorFacts, facts_with
from auvtool.extractors.weights import find_weights, version_of
from auvtool.feature_writer import refuse_stream, shard_is_complete
from auvtool.manifest import manifest_path
from auvtool.volume import read_case


@dataclass(frozen=True)
class ExtractionPlan:
    """What a run will do.

    Attributes:
        dataset: its cases are those that can be extracted.
        header: of the feature file.
        facts: of the extractor.
        finished: cases whose shards are there from an earlier run.
        problems: cases that cannot be extracted.
        is_unfinished: shards are there and no manifest: a run was killed, maybe after the output appeared.
    """

    dataset: Dataset
    settings: ExtractionSettings
    output: Path
    header: FeatureHeader
    facts: ExtractorFacts
    finished: frozenset[str]
    problems: tuple[CaseProblem, ...]
    is_unfinished: bool = False

    @property
    def parts(self) -> Path:
        """Folder of the shards."""
        return parts_folder(self.output)

    @property
    def task(self) -> CaseTask:
        """What a worker needs beside its case."""
        return CaseTask(self.dataset.without_cases(), self.settings, self.header, self.facts.n_features, self.parts)

    def waiting(self) -> list[Case]:
        """Cases still to be extracted."""
        return [case for case in self.dataset.cases if case.case_id not in self.finished]


def parts_folder(output: Path) -> Path:
    """Folder of the finished cases of an unfinished run."""
    return output.with_name(output.name + ".parts")


def plan_extraction(
    dataset: Dataset,
    settings: ExtractionSettings,
    output: Path,
    *,
    case_ids: Sequence[str] = (),
    shard: tuple[int, int] = (1, 1),
    force: bool = False,
) -> ExtractionPlan:
    """What is to be done, checked as far as it can be without reading an image.

    Args:
        dataset: the cases.
        settings: how.
        output: the feature file.
        case_ids: only these; all when empty.
        shard: (i, n), 1-based: every n-th case from the i-th on.
        force: `output` may exist.

    Raises:
        UsageError: options that do not fit each other, the data set or this machine, or an output that is in the way.
        InputError: no case has a label but prompts need one, or the weights are not there.
    """
    refuse_stream(output)
    refuse_existing(output, force=True)  # a folder has no place for what stands beside a file
    is_unfinished = not manifest_path(output).exists() and parts_folder(output).is_dir()
    refuse_existing(output, force=force or is_unfinished)
    facts = facts_with(settings.extractor, settings.model)
    _check_settings(facts, settings)
    _check_channel(dataset, settings)
    problems = dataset.problems
    if settings.prompt == "mask-box" or settings.input == "mask":
        dataset = require_labels(dataset)
        problems = dataset.problems
    if _asks_by_name(facts, settings):
        if not dataset.classes:
            raise UsageError(
                f"--prompt {settings.prompt}: expected a data set with classes, got {dataset.folder}; name a raw data "
                "set, or its labels with --labels"
            )
        prompts = prompts_of_classes(
            dataset.classes, dict(settings.model.class_prompts), facts.class_names, facts.class_aliases
        )
        # Recorded with what is left out, so that the record alone gives these channels again.
        left_out = tuple((one.name, "") for one in dataset.classes if one.name not in dict(prompts))
        settings = replace(settings, model=replace(settings.model, class_prompts=prompts + left_out))
        channels = tuple((one.class_id, one.name) for one in dataset.classes if one.name in dict(prompts))
    elif settings.prompt == "mask-box":
        channels = tuple((one.class_id, one.name) for one in dataset.classes)
    else:
        channels = tuple(enumerate(facts.channels_without_prompt, start=1))
    weights = find_weights(facts, settings.model.weights)
    header = FeatureHeader(
        extractor=settings.extractor,
        extractor_version=version_of(facts),
        weights_sha256=None if weights is None else weights.sha256,
        prompt=settings.prompt,
        input=settings.input,
        dataset=dataset.name,
        channels=channels,
        options={name: getattr(settings, name) for name in ("channel", "store", "slice_stride", "max_slices")}
        | settings.model.given(),
    )
    dataset, problems = _selected(dataset, problems, case_ids, shard)
    parts = parts_folder(output)
    finished = frozenset(
        case.case_id
        for case in dataset.cases
        if shard_is_complete(shard_path(parts, case.case_id), header, case.case_id, inputs=input_state(case, dataset))
    )
    return ExtractionPlan(dataset, settings, output, header, facts, finished, problems, is_unfinished)


def map_bytes(plan: ExtractionPlan) -> int | None:
    """Bytes that the maps of all waiting cases will take, estimated from three of them; 0 if none are stored.

    None where none of the three can be read.
    """
    if plan.settings.store == "spectrum":
        return 0
    waiting = plan.waiting()
    if plan.facts.map_voxels is not None:
        return 4 * plan.facts.map_voxels * len(plan.header.channels) * len(waiting)
    sizes = []
    for case in waiting[:: max(1, len(waiting) // 3)][:3]:
        try:
            volume = read_case(case, plan.dataset)
        except InputError:
            continue
        d, h, w = volume.geometry.shape
        if plan.settings.prompt == "none" or plan.facts.whole_volume:
            n_maps = d * len(plan.header.channels)
        elif volume.label is not None:
            n_maps = sum(int(np.isin(volume.label, one.labels).any(axis=(1, 2)).sum()) for one in plan.dataset.classes)
        else:
            n_maps = 0
        limit = plan.settings.max_slices or d
        n_maps = min(-(-n_maps // plan.settings.slice_stride), limit * len(plan.header.channels))
        grid = plan.facts.map_side or max(h, w)
        sizes.append(4 * n_maps * (h * grid // max(h, w)) * (w * grid // max(h, w)))
    return None if waiting and not sizes else max(sizes, default=0) * len(waiting)


def check_space(plan: ExtractionPlan) -> None:
    """Raise OutputError if the disk is too small for the maps that are to be stored."""
    needed = map_bytes(plan)
    if not needed:
        return
    free = shutil.disk_usage(plan.output.parent).free
    if 2 * needed > free:  # the shards, and the file they are joined to
        raise OutputError(
            f"{plan.output}: expected about {2 * needed / 1e9:.1f} GB of free disk for the maps, got {free / 1e9:.1f} "
            "GB; use --store spectrum, --slice-stride or another disk"
        )


def _shard_from_environment() -> tuple[int, int]:
    """(i, n), 1-based, of a SLURM array task, else of RANK and WORLD_SIZE.

    Raises:
        UsageError: neither is set or they are no numbers, or the array has gaps: its tasks would leave cases out.
    """
    environment = os.environ
    try:
        if "SLURM_ARRAY_TASK_ID" in environment and "SLURM_ARRAY_TASK_COUNT" in environment:
            number, count = int(environment["SLURM_ARRAY_TASK_ID"]), int(environment["SLURM_ARRAY_TASK_COUNT"])
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
            step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
            last = int(environment.get("SLURM_ARRAY_TASK_MAX", first + (count - 1) * step))
            if number not in range(first, last + 1, step) or len(range(first, last + 1, step)) != count:
                raise UsageError(
                    f"--shard: expected a SLURM array without gaps (--array=1-{count}), got task {number} of {count} "
                    f"from {first} to {last}; give I/N for a part of an array"
                )
            return (number - first) // step + 1, count
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return int(environment["RANK"]) + 1, int(environment["WORLD_SIZE"])
    except ValueError as error:
        raise UsageError(f"--shard: expected numbers in SLURM_* (RANK, WORLD_SIZE), got {error}; give I/N") from error
    raise UsageError("--shard: expected SLURM_ARRAY_TASK_ID and _COUNT, or RANK and WORLD_SIZE, got neither; give I/N")


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of "I/N" with 1 <= I <= N, or of "auto" from the environment.

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return _shard_from_environment()
    index, slash, count = text.partition("/")
    if slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise UsageError(f"--shard: expected I/N with 1 <= I <= N, or auto, got {text}; for example 2/8")


def _check_settings(facts: ExtractorFacts, settings: ExtractionSettings) -> None:
    """Refuse what the extractor does not take, rather than ignore it."""
    for option, given, taken in (
        ("--prompt", settings.prompt, facts.prompts),
        ("--input", settings.input, facts.inputs),
    ):
        if given not in taken:
            raise UsageError(
                f"{option}: expected {' or '.join(taken)} for {settings.extractor}, got {given}; choose one"
            )
    names = {"class_prompts": "prompts"}
    for name, value in settings.model.given().items():
        if name not in facts.options:
            option, found = names.get(name, name), "a table" if name == "class_prompts" else _as_typed(value)
            raise UsageError(f"--{option}: expected nothing for {settings.extractor}, got {found}; leave it out")
    if settings.model.class_prompts and not _asks_by_name(facts, settings):
        raise UsageError(f"--prompts: expected --prompt class-name, got {settings.prompt}; leave one of them out")
    if settings.model.window is not None and settings.input == "mask":
        raise UsageError(
            "--window: expected --input raw, got mask, which has a window of its own; leave one of them out"
        )
    if settings.model.propagate and settings.prompt != "mask-box":
        raise UsageError(f"--propagate: expected --prompt mask-box, got {settings.prompt}; leave one of them out")
    if facts.whole_volume and (settings.slice_stride > 1 or settings.max_slices is not None):
        raise UsageError(
            f"--slice-stride, --max-slices: expected neither for {settings.extractor}, which sees the volume at once, "
            "got one; leave it out"
        )


def _as_typed(value: object) -> str:
    """The value of an option as it stands on a command line."""
    if isinstance(value, bool):
        return "it"
    return ",".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)


def _asks_by_name(facts: ExtractorFacts, settings: ExtractionSettings) -> bool:
    return settings.prompt == "class-name" or (settings.prompt == "mask-box" and facts.names_with_boxes)


def _check_channel(dataset: Dataset, settings: ExtractionSettings) -> None:
    if settings.channel >= len(dataset.channel_names):
        names = ", ".join(f"{number} {name}" for number, name in enumerate(dataset.channel_names))
        raise UsageError(f"--channel: expected one of {names}, got {settings.channel}; choose one of them")


def _selected(
    dataset: Dataset, problems: tuple[CaseProblem, ...], case_ids: Sequence[str], shard: tuple[int, int]
) -> tuple[Dataset, tuple[CaseProblem, ...]]:
    everything = sorted({case.case_id for case in dataset.cases} | {problem.case_id for problem in problems})
    named = set(case_ids)
    unknown = sorted(named - set(everything))
    if unknown:
        raise UsageError(f"--cases: expected case ids of {dataset.folder}, got {', '.join(unknown)}; check them")
    index, count = shard
    chosen = set([case_id for case_id in everything if not named or case_id in named][index - 1 :: count])
    if not chosen:
        raise UsageError(f"--shard: expected at most as many shards as cases, got {index}/{count}; use fewer")
    cases = tuple(case for case in dataset.cases if case.case_id in chosen)
    return replace(dataset, cases=cases), tuple(problem for problem in problems if problem.case_id in chosen)
