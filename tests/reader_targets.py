"""Every reader of files that may come from a stranger, as one call on bytes, and small valid files to start from.

A reader may give a value or raise an AuvtoolError. `strike` lets anything else through: it is a fault of the reader.
"""

import gzip
import io
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813  # its usual name

from auvtool.errors import AuvtoolError, InputError
from auvtool.visible_text import visible


@dataclass(frozen=True)
class Target:
    """A reader: `name` of the file it is given, valid contents to start from, and the call."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]


def strike(target: Target, content: bytes, folder: Path) -> object:
    """What the reader makes of a file with this content; the error that it raised, if that is one for the user."""
    path = folder / target.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a library, about the file
            return target.read(path)
    except AuvtoolError as error:
        text = str(error)
        assert text == visible(text), f"an error that can be shown, got {text!r}"
        assert "\n" not in text, f"an error of one line, got {text!r}"
        return error


def _read_volume(path: Path) -> object:
    """Image, label and header of a file: all that any command reads of it."""
    from auvtool.volume import read_image, read_label
    from auvtool.volume_file import read_nifti_grid

    found = []
    readers: list[Callable[[], object]] = [lambda: read_image([path]), lambda: read_label(path)]
    if path.name.endswith((".nii", ".nii.gz")):
        readers.append(lambda: read_nifti_grid(path))
    for read in readers:
        try:
            found.append(read())
        except AuvtoolError as error:
            found.append(error)
    if isinstance(found[0], AuvtoolError):
        raise found[0]
    return found


VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def _nifti_seeds() -> list[bytes]:
    volumes = [
        nibabel.Nifti1Image(VOXELS, np.diag([0.7, 0.8, 3.0, 1.0])),
        nibabel.Nifti2Image(VOXELS.astype(np.float32), np.eye(4)),
        nibabel.Nifti1Image(np.stack([VOXELS, VOXELS], axis=-1).astype(np.float64), np.eye(4)),
    ]
    volumes[0].header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made by hand"))
    volumes[0].header.set_slope_inter(2, 1)
    return [volume.to_bytes() for volume in volumes]


def _itk_seeds(ending: str) -> list[bytes]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, compress in enumerate((False, True)):
            path = Path(folder) / f"{number}{ending}"
            image = sitk.GetImageFromArray(VOXELS)
            image.SetSpacing((0.7, 0.8, 3.0))
            sitk.WriteImage(image, str(path), compress and ending != ".gipl")
            found.append(path.read_bytes())
    return list(dict.fromkeys(found))


def _mhd_seeds() -> list[bytes]:
    text = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementSpacing = 1 1 3\nElementDataFile = "
    return [(text + name + "\n").encode() for name in ("a.raw", "LIST\na.raw")]


def _read_beside_raw(path: Path) -> object:
    for name in ("a.raw", "a01.raw", "a02.raw"):
        path.with_name(name).write_bytes(VOXELS.tobytes())
    return _read_volume(path)


def _tiff_seeds() -> list[bytes]:
    import tifffile

    found = []
    for more in ({}, {"compression": "zlib"}, {"ome": True}, {"imagej": True}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, VOXELS.astype(np.uint16), **more)
        found.append(buffer.getvalue())
    return found


def _picture_seeds(kind: str) -> list[bytes]:
    from PIL import Image

    found = []
    for mode in ("L", "RGB", "P", "1"):
        buffer = io.BytesIO()
        Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).convert(mode).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def _dataset_seeds() -> list[bytes]:
    record = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    entry = {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}
    return [
        json.dumps(one).encode()
        for one in (
            record,
            {**record, "labels": regions, "regions_class_order": [1, 2]},
            {**record, "dataset": {"a": entry}},
        )
    ]


def _read_dataset(path: Path) -> object:
    from auvtool.dataset import open_dataset

    folder = path.parent
    for name in ("a_0000.nii.gz", "a.nii.gz", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return open_dataset(folder)


def _table_rows() -> list[dict[str, object]]:
    from report_inputs import score_rows

    return score_rows(3)


def _table_seeds() -> list[bytes]:
    from auvtool.schema import SCORES
    from auvtool.tables import render, write_table

    rows = _table_rows()
    found = [render(rows, SCORES, kind).encode() for kind in ("csv", "tsv", "json", "jsonl")]
    with tempfile.TemporaryDirectory() as folder:
        write_table(rows, SCORES, Path(folder) / "a.parquet")
        found.append((Path(folder) / "a.parquet").read_bytes())
    return found


def _read_scores(path: Path) -> object:
    from auvtool.keep_list import judge
    from auvtool.schema import SCORES
    from auvtool.tables import read_table, render

    rows = read_table(path, SCORES)
    for kind in ("csv", "json"):
        render(rows, SCORES, kind).encode()
    return judge(rows, 0.9)


def _keep_seeds() -> list[bytes]:
    return [b"case,keep,auv\ncase_0,true,0.5\ncase_1,false,\n", b"case_0\n# a comment\ncase_1\n"]


def _read_keep(path: Path) -> object:
    from auvtool.keep_list import read_keep_list

    return read_keep_list(path)


def _feature_seeds() -> list[bytes]:
    from features import case_features, write_features

    maps = [np.random.default_rng(0).normal(size=(4, 5, 6)), None]
    with tempfile.TemporaryDirectory() as folder:
        path = write_features(Path(folder) / "F.h5", [case_features("a", maps)])
        return [path.read_bytes()]


def _read_features(path: Path) -> object:
    from auvtool.feature_store import FeatureFile

    with FeatureFile(path) as file:
        for case_id in file.case_ids:
            file.case(case_id)
            for class_id in file.map_ids(case_id):
                file.map(case_id, class_id)
        return file.case_ids


def _checkpoint_seeds() -> list[bytes]:
    import torch

    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(1, dtype=torch.int64)}
    nnunet = {"network_weights": weights, "init_args": {"configuration": "2d"}, "trainer_name": "nnUNetTrainer"}
    found = []
    for content in (weights, nnunet):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            found.append(buffer.getvalue())
    return found


def _read_checkpoint(path: Path) -> object:
    from auvtool.nnunet_run import read_checkpoint

    return read_checkpoint(path)


def _read_state(path: Path) -> object:
    from auvtool.checkpoint import read_weights

    return {name: tensor.shape for name, tensor in read_weights(path).items()}


def _plans_seeds() -> list[bytes]:
    full = {
        "spacing": [3.0, 1.0, 1.0],
        "patch_size": [16, 32, 32],
        "batch_size": 2,
        "data_identifier": "nnUNetPlans_3d_fullres",
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {"n_stages": 2, "features_per_stage": [32, 64], "strides": [[1, 1, 1], [2, 2, 2]]},
            "_kw_requires_import": [],
        },
    }
    plans = {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": full, "3d_low": {"inherits_from": "3d_fullres", "batch_size": 3}},
    }
    return [json.dumps(plans).encode()]


def _read_plans(path: Path) -> object:
    from auvtool.training.plans import adapted_plans, read_plans, resolved_configuration
    from auvtool.training.recipe import Recipe

    plans = read_plans(path)
    for name in plans["configurations"]:
        recipe = Recipe(configuration=name, patch_size=(16, 16, 16), batch_size=2, features=8)
        resolved_configuration(adapted_plans(plans, recipe), name)
    return plans


def _split_seeds() -> list[bytes]:
    return [json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a"]}]).encode()]


def _read_splits(path: Path) -> object:
    from auvtool.keep_list import KeepList
    from auvtool.split_fold import filtered_fold
    from auvtool.training.folds import choose_fold, read_or_make_splits

    folds = read_or_make_splits(path, ["a", "b", "c"])
    found: list[object] = [filtered_fold(path, KeepList(frozenset("ab"), None))]
    found.append(choose_fold(folds, case_ids=["a", "b", "c"], number=0))
    return found


def _manifest_seeds() -> list[bytes]:
    record = {"auvtool": "1", "command": "score", "options": {"energy": "squared"}, "inputs": {}, "written": "today"}
    return [json.dumps(record).encode()]


def _read_manifest(path: Path) -> object:
    from auvtool.inspection import describe_file
    from auvtool.manifest import recorded, recorded_option

    output = path.with_name(path.name.removesuffix(".manifest.json"))
    output.write_text("case,keep,auv\ncase_0,true,0.5\n")
    return recorded(output), recorded_option(output, "energy"), describe_file(output)


def _weights_seeds() -> list[bytes]:
    return [b'{"liver": 2, "2": 0.5}', b"class_name,weight\nliver,2\ntumour,0.5\n"]


def _read_class_weights(path: Path) -> object:
    from auvtool.dataset_json import SemanticClass
    from auvtool.training.class_table import given_weights

    return given_weights(path, [SemanticClass(1, "liver", (1,)), SemanticClass(2, "tumour", (2,))])


def _msd_seeds() -> list[bytes]:
    record = {
        "labels": {"0": "background", "1": "liver"},
        "modality": {"0": "CT"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz"],
    }
    return [json.dumps(record).encode()]


def _read_msd(path: Path) -> object:
    from auvtool.converters.msd import find_cases

    for name in ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).touch()
    return find_cases(path.parent)


def _meta_seeds() -> list[bytes]:
    return [b"image_id;age;split\ns0000;3;train\ns0001;4;test\n"]


def _read_meta(path: Path) -> object:
    from auvtool.converters.totalsegmentator import find_cases

    masks = path.parent / "s0000" / "segmentations"
    masks.mkdir(parents=True, exist_ok=True)
    (masks / "liver.nii.gz").touch()
    (path.parent / "s0000" / "ct.nii.gz").touch()
    return find_cases(path.parent)


def _log_seeds() -> list[bytes]:
    line = {"epoch": 0, "train_loss": 0.5, "val_loss": None, "pseudo_dice": {"liver": 0.5}}
    return [json.dumps(line).encode() + b"\n"]


def _read_log(path: Path) -> object:
    from auvtool.report.training_curves import read_trainings

    return read_trainings(path.parent)


TARGETS = {
    "nii": Target("a.nii", _nifti_seeds, _read_volume),
    "nii.gz": Target("a.nii.gz", lambda: [gzip.compress(seed, mtime=0) for seed in _nifti_seeds()], _read_volume),
    "mha": Target("a.mha", lambda: _itk_seeds(".mha"), _read_volume),
    "mhd": Target("a.mhd", _mhd_seeds, _read_beside_raw),
    "nrrd": Target("a.nrrd", lambda: _itk_seeds(".nrrd"), _read_volume),
    "gipl": Target("a.gipl", lambda: _itk_seeds(".gipl"), _read_volume),
    "tif": Target("a.tif", _tiff_seeds, _read_volume),
    "tiff": Target("a.tiff", _tiff_seeds, _read_volume),
    "png": Target("a.png", lambda: _picture_seeds("PNG"), _read_volume),
    "bmp": Target("a.bmp", lambda: _picture_seeds("BMP"), _read_volume),
    "dataset": Target("dataset.json", _dataset_seeds, _read_dataset),
    "scores": Target("S.csv", _table_seeds, _read_scores),
    "keep": Target("K.csv", _keep_seeds, _read_keep),
    "features": Target("F.h5", _feature_seeds, _read_features),
    "checkpoint": Target("checkpoint.pth", _checkpoint_seeds, _read_checkpoint),
    "state": Target("weights.pth", _checkpoint_seeds, _read_state),
    "plans": Target("nnUNetPlans.json", _plans_seeds, _read_plans),
    "splits": Target("splits_final.json", _split_seeds, _read_splits),
    "manifest": Target("K.csv.manifest.json", _manifest_seeds, _read_manifest),
    "weights": Target("W.json", _weights_seeds, _read_class_weights),
    "msd": Target("task/dataset.json", _msd_seeds, _read_msd),
    "meta": Target("meta.csv", _meta_seeds, _read_meta),
    "log": Target("training_log.jsonl", _log_seeds, _read_log),
}


def refused(name: str, content: bytes, folder: Path, message: str) -> None:
    """Assert that the reader refuses a file with this content, and says this of it."""
    found = strike(TARGETS[name], content, folder)
    assert isinstance(found, InputError), found
    assert message in str(found)
