"""Shards of a feature file: cases with random numbers in every array of the layout."""

from pathlib import Path

import numpy as np
from features import random_evidence

from auvtool.case_features import MAP_KINDS, ROIS, CaseFeatures, FeatureHeader
from auvtool.feature_writer import case_shard
from auvtool.spectrum import CENTERINGS, UNFOLDINGS

HEADER = FeatureHeader(
    extractor="identity",
    extractor_version="1",
    weights_sha256=None,
    prompt="mask-box",
    input="raw",
    dataset="Dataset001_Tiny",
    channels=((1, "liver"), (2, "tumour"), (3, "spleen")),
    options={"channel": 0},
)


def case_features(case_id: str, seed: int = 0) -> CaseFeatures:
    generator = np.random.default_rng(seed)
    ranks = (4, 0, 2)
    return CaseFeatures(
        case_id=case_id,
        class_ids=(1, 2, 3),
        class_names=("liver", "tumour", "spleen"),
        status=("ok", "absent", "flat"),
        n_slices=np.array([4, 0, 2]),
        n_voxels=np.array([40, 0, 7]),
        n_feature_voxels=np.array([90, 0, 13]),
        volume_ml=np.array([0.04, 0.0, 0.007]),
        spectra={
            (roi, kind, unfolding, centering): [np.sort(generator.random(rank))[::-1] for rank in ranks]
            for roi in ROIS
            for kind in MAP_KINDS
            for unfolding in UNFOLDINGS
            for centering in CENTERINGS
        },
        channel_spectra={centering: generator.random((3, 5)) for centering in CENTERINGS},
        class_features=generator.random((3, 5)).astype(np.float32),
        voxel_statistics=generator.random((3, 2)),
        statistic_names=("mean", "std"),
        agreement=np.array([np.linspace(0.9, -0.3, 7), [np.nan] * 7, [0.0] * 7]),
        evidence=random_evidence(generator, np.array([[True], [False], [True]])),
        log_residual_probability=-1.5,
        foreground_ml=0.045,
        shape=(6, 8, 9),
        spacing_mm=(5.0, 0.7, 0.8),
        slice_axis="S",
    )


def write_shard(path: Path, features: CaseFeatures, *, header: FeatureHeader = HEADER, maps: bool = False) -> Path:
    with case_shard(path, header, features.case_id, inputs="a.nii.gz 10 20") as writer:
        if maps:
            writer.add_map(1, np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array([3, 5]))
        writer.finish(features)
    return path
