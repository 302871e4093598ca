"""One case through an extractor to its shard."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from auvtool.case_evidence import case_evidence
from auvtool.case_features import FeatureHeader
from auvtool.cases import Case, Dataset
from auvtool.class_box import class_boxes, class_mask
from auvtool.dataset_json import SemanticClass
from auvtool.errors import AuvtoolError, InputError, OutputError, one_line
from auvtool.extractors import DecodedChannel, Extractor, ModelInput, load_extractor
from auvtool.extractors.facts import Prompt
from auvtool.extractors.model_options import ModelOptions
from auvtool.faults import read_case_with_fault
from auvtool.feature_store import group_name
from auvtool.feature_writer import case_shard
from auvtool.measurement import ChannelRegion, choose_slices, measure_case
from auvtool.normalize import InputMode, normalize
from auvtool.volume import CaseVolume

Store: TypeAlias = Literal["spectrum", "maps", "both"]


@dataclass(frozen=True)
class ExtractionSettings:
    """The options of `auvtool extract` that change a number, and the device."""

    extractor: str = "litemedsam"
    model: ModelOptions = field(default_factory=ModelOptions)
    prompt: Prompt = "mask-box"
    input: InputMode = "mask"
    channel: int = 0
    store: Store = "spectrum"
    slice_stride: int = 1
    max_slices: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class CaseTask:
    """What is the same for every case of a run, without its list of cases: it goes to each worker with each case.

    Attributes:
        dataset: without its cases; its classes are those to decode.
        settings: how.
        header: of the feature file.
        n_features: of the extractor.
        parts: folder of the shards.
    """

    dataset: Dataset
    settings: ExtractionSettings
    header: FeatureHeader
    n_features: int
    parts: Path


@dataclass(frozen=True)
class CaseOutcome:
    """How a case ended: `error` None when its shard is written; `fatal` when no other case can do better."""

    case_id: str
    error: AuvtoolError | None = None
    fatal: bool = False
    warnings: tuple[str, ...] = ()


def shard_path(parts: Path, case_id: str) -> Path:
    """Where the shard of a case lies in the folder of a run's shards."""
    return parts / f"{group_name(case_id)}.h5"


def input_state(case: Case, dataset: Dataset) -> str:
    """Names, sizes and times of a case's files, what they mean, and its fault: a shard of what has changed since is
    made again."""
    donor = case.fault.donor if case.fault else None
    files = (*case.images, *(path for path in (case.label, donor) if path))
    # With the folder: labels of the same names may lie in another one (--labels).
    states = [(f"{path.parent.name}/{path.name}", path.stat()) for path in files if path.is_file()]
    texts = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]
    texts.append(f"meaning {dataset.meaning()}")
    if case.fault:
        texts.append(f"fault {case.fault.kind} {case.fault.level} {case.fault.seed}")
    return "; ".join(texts)


def inputs_digest(dataset: Dataset) -> str:
    """SHA-256 of the ids, files and faults of the cases, and of their meaning: it changes when any of them does."""
    text = json.dumps(sorted((case.case_id, input_state(case, dataset)) for case in dataset.cases))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ReadCase:
    """What an extraction needs of a case's files, and the state that they were read in (`input_state`)."""

    volume: CaseVolume
    inputs: str


def read_files(case: Case, task: CaseTask) -> ReadCase:
    """The files of a case.

    Raises:
        InputError: they are not as they should be.
    """
    inputs = input_state(case, task.dataset)  # first: a file that changes while it is read is another one
    needs_label = task.settings.prompt != "none" or task.settings.input == "mask"
    return ReadCase(read_case_with_fault(case if needs_label else replace(case, label=None), task.dataset), inputs)


def extract_case(
    case: Case, task: CaseTask, extractor: Extractor, read: Callable[[], ReadCase] | None = None
) -> tuple[str, ...]:
    """Write the shard of one case.

    Args:
        case: to extract.
        task: how.
        extractor: loaded.
        read: gives what was read ahead; None: the files are read here.

    Returns:
        Warnings about its files.

    Raises:
        InputError: its files are not as they should be.
        OutputError: the disk is full.
        ValueError: the decoded map holds a NaN.
    """
    settings, dataset = task.settings, task.dataset
    prompted = settings.prompt != "none"
    files = read_files(case, task) if read is None else read()
    volume = files.volume
    label = volume.label
    classes = (
        tuple(one for one in dataset.classes if (one.class_id, one.name) in task.header.channels) if prompted else ()
    )
    image = volume.image[settings.channel]
    slices = choose_slices(
        label if prompted else None,
        classes,
        volume.geometry.shape[0],
        stride=settings.slice_stride,
        limit=settings.max_slices,
    )
    if len(slices) or not prompted:  # an empty label has no foreground to normalise by, and nothing to decode
        image = _normalised(image, label, dataset, settings.input, case)
    model_input = ModelInput(
        image,
        label if prompted else None,
        classes,
        slices,
        channels=volume.image,
        geometry=volume.geometry,
        normalised=settings.input == "mask",
        channel_name=dataset.channel_names[settings.channel],
        prompt=settings.prompt,
    )
    if label is None or not classes:
        regions = [ChannelRegion(image, None, None) for _ in task.header.channels]
    else:
        boxes = class_boxes(label, [one.labels for one in classes])
        regions = [ChannelRegion(image, label, one, box) for one, box in zip(classes, boxes, strict=True)]
    with case_shard(shard_path(task.parts, case.case_id), task.header, case.case_id, inputs=files.inputs) as writer:

        def keep_map(class_id: int, channel: DecodedChannel) -> None:
            if settings.store != "spectrum" and channel.logits is not None:
                writer.add_map(class_id, channel.logits, channel.slices)

        features = measure_case(
            case.case_id,
            task.header.channels,
            _decoded(extractor, model_input, settings),
            iter(regions),
            volume.geometry,
            n_foreground=_foreground_size(image, label, classes),
            n_features=task.n_features,
            with_spectra=settings.store != "maps",
            # Of the image as it is stored: what mask normalisation clips away is evidence too.
            evidence=partial(
                case_evidence,
                image=volume.image[settings.channel],
                label=label if prompted else None,
                classes=classes,
                spacing_mm=volume.geometry.spacing_mm,
                n_channels=len(task.header.channels),
            ),
            keep_map=keep_map,
            device=settings.device,
        )
        writer.finish(features)
    return volume.warnings


_loaded: dict[ExtractionSettings, Extractor] = {}  # a process loads its model once


def work_on_case(case: Case, *, task: CaseTask, read: Callable[[], ReadCase] | None = None) -> CaseOutcome:
    """A case in a worker: errors are returned, so that one bad case never ends the run. Arguments: `extract_case`."""
    try:
        if task.settings not in _loaded:
            import torch

            torch.set_num_threads(1)
            _loaded[task.settings] = load_extractor(
                task.settings.extractor, task.settings.model, device=task.settings.device
            )
    except AuvtoolError as error:
        return CaseOutcome(case.case_id, error, fatal=True)
    try:
        warnings = extract_case(case, task, _loaded[task.settings], read)
    except OutputError as error:
        return CaseOutcome(case.case_id, error, fatal=True)
    except AuvtoolError as error:
        return CaseOutcome(case.case_id, error)
    except Exception as error:  # becomes this case's row of the failure table
        return CaseOutcome(case.case_id, not_extracted(case.case_id, f"{type(error).__name__}: {one_line(error)}"))
    return CaseOutcome(case.case_id, warnings=warnings)


def _decoded(extractor: Extractor, case: ModelInput, settings: ExtractionSettings) -> Iterator[DecodedChannel]:
    """The extractor's channels; mixed precision holds while it works, not for what is made of them."""
    if settings.model.amp == "off":
        yield from extractor.decode(case)
        return
    import torch

    channels = extractor.decode(case)
    while True:
        with torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16):
            channel = next(channels, None)
        if channel is None:
            return
        yield channel


def not_extracted(case_id: str, found: str, cure: str = "look at the case, or leave it out") -> InputError:
    """The error of a case for a reason that no reader foresaw."""
    return InputError(case_id, expected="a case that can be extracted", found=f"'{found}'", cure=cure)


def _foreground_size(image: np.ndarray, label: np.ndarray | None, classes: tuple[SemanticClass, ...]) -> int:
    """Voxels of any class, each once whatever regions overlap; of the whole image without classes."""
    if label is None or not classes:
        return image.size
    return int(class_mask(label, [value for one in classes for value in one.labels]).sum())


def _normalised(
    image: np.ndarray, label: np.ndarray | None, dataset: Dataset, mode: InputMode, case: Case
) -> np.ndarray:
    try:
        return normalize(image, label, mode, ignore_label=dataset.ignore_label)
    except ValueError as error:
        raise InputError(
            case.label or case.case_id,
            expected="a label with foreground to normalise by",
            found=f"'{one_line(error)}'",
            cure="use --input raw, or leave the case out",
        ) from error
