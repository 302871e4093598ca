"""Small feature files: any maps one likes, in the layout that extract writes."""

import numpy as np

from auvtool.case_evidence import COLUMNS, N_CELLS, CaseEvidence
from auvtool.case_features import AGREEMENT_COLUMNS, ROIS, CaseFeatures, FeatureHeader
from auvtool.feature_writer import assemble, case_shard
from auvtool.gram import map_spectra
from auvtool.measurement import STATISTIC_NAMES
from auvtool.spectrum import CENTERINGS, UNFOLDINGS

CLASSES = ((1, "liver"), (2, "tumour"))


def sigmoid(logits):
    return 1.0 / (1.0 + np.exp(-logits))


def case_features(case_id, maps, *, dice=None, classes=CLASSES):
    """Features of a case from its logits, one map (d, h, w) a class, None where the class is absent.

    A voxel is one microlitre, and the class region is where the logits are above 0. What is not a spectrum, a size or
    the agreement is random, by the case's name.
    """
    spectra = {}
    for roi in ROIS:
        for logits in maps:
            for of in ("logits", "probabilities"):
                volume = logits if of == "logits" or logits is None else sigmoid(logits)
                if volume is not None and roi == "class-box":
                    volume = volume[:, 1:-1, 1:]  # any box will do
                found = {} if volume is None else map_spectra(volume)
                for unfolding in UNFOLDINGS:
                    for centering in CENTERINGS:
                        values = found.get((unfolding, centering), np.empty(0))
                        spectra.setdefault((roi, of, unfolding, centering), []).append(values)
    status = tuple("absent" if m is None else "ok" if np.ptp(m) else "flat" for m in maps)
    n = len(maps)
    generator = np.random.default_rng(list(case_id.encode()))
    present = np.array([[one is not None] for one in maps])
    n_voxels = np.array([0 if m is None else (m > 0).sum() for m in maps], dtype=np.int64)
    agreement = np.full((n, len(AGREEMENT_COLUMNS)), np.nan)
    if dice is not None:
        agreement[:, :3] = [[d, d / (2 - d), d] for d in dice]
    return CaseFeatures(
        case_id=case_id,
        class_ids=tuple(class_id for class_id, _ in classes),
        class_names=tuple(name for _, name in classes),
        status=status,
        n_slices=np.array([0 if m is None else len(m) for m in maps], dtype=np.int64),
        n_voxels=n_voxels,
        n_feature_voxels=n_voxels,
        volume_ml=n_voxels / 1000.0,
        spectra=spectra,
        channel_spectra={c: np.where(present, np.sort(generator.random((n, 4)))[:, ::-1], np.nan) for c in CENTERINGS},
        class_features=np.where(present, generator.normal(size=(n, 4)), np.nan).astype(np.float32),
        voxel_statistics=np.where(present, generator.random((n, len(STATISTIC_NAMES))), np.nan),
        statistic_names=STATISTIC_NAMES,
        agreement=agreement,
        evidence=random_evidence(generator, present),
        log_residual_probability=-generator.random(),
        foreground_ml=float(n_voxels.sum()) / 1000.0,
        shape=(8, 8, 8),
        spacing_mm=(1.0, 1.0, 1.0),
        slice_axis="S",
    )


def random_evidence(generator, present, n_image_features=6):
    """Random numbers in every place; nan where a class is absent (present: (class, 1) of bool)."""

    def of_classes(n):
        return np.where(present, generator.normal(size=(len(present), n)), np.nan)

    return CaseEvidence(
        label_shape=of_classes(len(COLUMNS["label_shape"])),
        label_boundary=of_classes(len(COLUMNS["label_boundary"])),
        label_thumbnail=of_classes(N_CELLS).astype(np.float32),
        image_quality=generator.normal(size=len(COLUMNS["image_quality"])),
        image_thumbnail=generator.normal(size=N_CELLS).astype(np.float32),
        image_features=generator.normal(size=n_image_features).astype(np.float32),
    )


def write_features(path, cases, *, classes=CLASSES, image_input="raw", prompt="mask-box"):
    """Write features of `cases` (CaseFeatures) to `path`."""
    header = FeatureHeader("identity", "1", None, prompt, image_input, "Dataset999_Test", tuple(classes))
    shards = {}
    for case in cases:
        shards[case.case_id] = path.with_name(f"{path.name}.{len(shards)}.part")
        with case_shard(shards[case.case_id], header, case.case_id, inputs="") as writer:
            writer.finish(case)
    assemble(shards, path, header, force=True)
    for shard in shards.values():
        shard.unlink()
    return path


def random_maps(seed, n_classes=2, shape=(6, 9, 7)):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) * 3 for _ in range(n_classes)]
