"""A small nnU-Net raw data set of CT-like phantoms with known dirty cases, and its answer key."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auvtool import phantoms
from auvtool.arrays import LabelMap
from auvtool.corruption import images, labels
from auvtool.corruption.cases import Level, Parameters
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.phantoms import Phantom
from auvtool.schema import KEEP_LIST, Row
from auvtool.tables import write_table

DATASET_NAME = "Dataset900_Phantoms"
ANSWER_KEY_NAME = "answer_key.csv"
CLEAN_LIST_NAME = "keep_answer_key.csv"


@dataclass(frozen=True)
class DataPlan:
    """What is drawn.

    Attributes:
        n_training: cases to train on, the dirty ones among them.
        n_validation: the last of the training cases, all clean, that nnU-Net validates on.
        n_test: clean cases held out, in imagesTs and labelsTs.
        shape: voxels of a case along d, h, w.
        seed: of the phantoms, of the faults, and of which cases are dirty.
    """

    n_training: int = 20
    n_validation: int = 2
    n_test: int = 4
    shape: tuple[int, int, int] = (6, 48, 64)
    seed: int = 0


@dataclass(frozen=True)
class PhantomFault:
    """A kind of dirty case: `spoil(phantom, label of another case, generator)` gives the dirty copy."""

    kind: str
    level: Level
    parameters: Parameters
    spoil: Callable[[Phantom, LabelMap, np.random.Generator], Phantom]


def _with_image(phantom: Phantom, image: np.ndarray) -> Phantom:
    voxels = np.rint(np.clip(image, -1024, 3071)).astype(np.int16)
    return Phantom(voxels, phantom.label, phantom.spacing_mm)


def _with_label(phantom: Phantom, label: np.ndarray) -> Phantom:
    return Phantom(phantom.image, label.astype(np.uint8), phantom.spacing_mm)


def _floats(phantom: Phantom) -> np.ndarray:
    return phantom.image.astype(np.float32)


# One case of each, named as in auvtool.corruption.kinds.
FAULTS = (
    PhantomFault(
        "shifted",
        "high",
        {"distance_mm": 10.0},
        lambda p, _, g: _with_label(p, labels.shift(p.label, level=10.0, spacing_mm=p.spacing_mm, generator=g)),
    ),
    PhantomFault(
        # By voxels whatever the size, which is much for structures as small as these.
        "dilated",
        "medium",
        {"voxels": 3},
        lambda p, _, __: _with_label(p, labels.dilate(p.label, level=3.0)),
    ),
    PhantomFault("mirrored-label", "high", {"axis": "w"}, lambda p, _, __: _with_label(p, labels.flip(p.label))),
    PhantomFault(
        "missing-slices",
        "high",
        {"share": 0.5},
        lambda p, _, g: _with_label(p, labels.drop_slices(p.label, level=0.5, generator=g)),
    ),
    PhantomFault(
        "other-label", "high", {}, lambda p, o, _: _with_label(p, labels.label_of_another_case(p.label, other=o))
    ),
    PhantomFault(
        "gaussian-noise",
        "high",
        {"body_deviations": 0.5},
        lambda p, _, g: _with_image(p, images.add_noise(_floats(p), level=0.5, generator=g)),
    ),
    PhantomFault(
        "blur", "high", {"sigma_voxels": 3.0}, lambda p, _, __: _with_image(p, images.blur(_floats(p), level=3.0))
    ),
)


def write_phantom_dataset(folder: Path, *, plan: DataPlan, on_case: Callable[[str], None]) -> None:
    """Write `folder`/Dataset900_Phantoms and beside it its answer key, also as a keep list of the clean cases.

    The data set appears whole or not at all.

    Args:
        folder: an existing folder.
        plan: sizes and seed; equal plans write equal voxels.
        on_case: called with each case id written.

    Raises:
        ValueError: fewer clean training cases than faults need.
        OutputError: the answer key cannot be written.
    """
    if plan.n_training - plan.n_validation <= len(FAULTS):
        raise ValueError(f"{plan.n_training} training cases cannot hold {len(FAULTS)} dirty ones and a clean one")
    temporary = folder / f".{DATASET_NAME}.parts"
    shutil.rmtree(temporary, ignore_errors=True)  # of a demo that was killed
    try:
        key = _write_cases(temporary, plan, on_case)
        # nnU-Net's fold 0: auvtool train takes the split file of a raw data set over.
        training, validation = case_names(plan)[0][: -plan.n_validation], case_names(plan)[0][-plan.n_validation :]
        for name, content in (
            ("dataset.json", _dataset_json(plan)),
            ("splits_final.json", [{"train": training, "val": validation}]),
        ):
            (temporary / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        write_table(key, ANSWER_KEY, folder / ANSWER_KEY_NAME, force=True)
        clean: list[Row] = [{"case": row["case"], "keep": not row["dirty"], "reason": row["kind"]} for row in key]
        write_table(clean, KEEP_LIST, folder / CLEAN_LIST_NAME, force=True)
        temporary.replace(folder / DATASET_NAME)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def dirty_positions(plan: DataPlan) -> dict[int, PhantomFault]:
    """Which training cases (by position, never one of the validation cases) get which fault."""
    generator = np.random.default_rng([plan.seed, 1])
    places = generator.choice(plan.n_training - plan.n_validation, size=len(FAULTS), replace=False)
    return {int(place): fault for place, fault in zip(places, FAULTS, strict=True)}


def case_names(plan: DataPlan) -> tuple[list[str], list[str]]:
    """Case ids of the training part and of the test part."""
    names = [f"phantom_{number:03d}" for number in range(1, plan.n_training + plan.n_test + 1)]
    return names[: plan.n_training], names[plan.n_training :]


def _write_cases(folder: Path, plan: DataPlan, on_case: Callable[[str], None]) -> list[Row]:
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    training, test = case_names(plan)
    dirty = dirty_positions(plan)
    key: list[Row] = []
    for position, case_id in enumerate([*training, *test]):
        clean = _draw(plan, position)
        part, written, fault = "Ts" if case_id in test else "Tr", clean, dirty.get(position)
        if fault is not None:
            other = _draw(plan, (position + 1) % plan.n_training).label
            written = fault.spoil(clean, other, np.random.default_rng([plan.seed, 2, position]))
        _write_case(folder, part, case_id, written)
        if part == "Tr":
            key.append(
                {
                    "case": case_id,
                    "dirty": fault is not None,
                    "kind": fault.kind if fault else None,
                    "level": fault.level if fault else None,
                    "parameters": json.dumps(fault.parameters, sort_keys=True) if fault else None,
                    "dice": labels.severity_dice(written.label, clean.label),
                    "psnr": images.peak_signal_to_noise(_floats(written)[None], _floats(clean)[None]),
                }
            )
        on_case(case_id)
    return key


def _draw(plan: DataPlan, position: int) -> Phantom:
    return phantoms.ct_phantom(np.random.default_rng([plan.seed, 0, position]), shape=plan.shape)


def _write_case(folder: Path, part: str, case_id: str, phantom: Phantom) -> None:
    import SimpleITK

    for voxels, path in (
        (phantom.image, folder / f"images{part}" / f"{case_id}_0000.nii.gz"),
        (phantom.label, folder / f"labels{part}" / f"{case_id}.nii.gz"),
    ):
        # ITK's axes w, h, d point left, posterior, superior, which is how a phantom lies.
        volume = SimpleITK.GetImageFromArray(voxels)
        volume.SetSpacing(phantom.spacing_mm[::-1])  # type: ignore[no-untyped-call]  # SimpleITK has no types
        SimpleITK.WriteImage(volume, str(path), useCompression=True)


def _dataset_json(plan: DataPlan) -> dict[str, object]:
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: number for number, name in enumerate(phantoms.CLASS_NAMES, start=1)}},
        "numTraining": plan.n_training,
        "file_ending": ".nii.gz",
        "name": "Procedural CT-like phantoms, some of them dirty on purpose",
    }
