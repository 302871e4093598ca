"""CPU seconds of `extract` within the network and around it, for every foundation model, random weights at full size.

By hand, a quarter of an hour: AUVTOOL_TEST_DATA=... pytest -s tests/benchmarks/bench_network_share.py
`bench_extraction.py` has the default model against the bare network, run on its own.
"""

import time
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest
import torch
from model_weights import random_weights
from nnunet_runs import architecture, plans_of, write_run
from sam2_reference import PRESENT, build_reference, random_state
from segvol_weights import FULL_SHAPES
from torch.nn.modules import module as hooks

from auvtool.case_extraction import ExtractionSettings
from auvtool.dataset import open_dataset
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.model_options import ModelOptions

ORGANS = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5}  # as TotalSegmentator numbers them
HIPPOCAMPUS = {"background": 0, "anterior": 1, "posterior": 2}
WHERE = {"litemedsam": "MR", "medsam2": "MR", "nnunet": "MR", "anatomix": "MR", "segvol": "CT", "clip-driven": "CT"}


class NetworkTime:
    """CPU seconds within the outermost modules that are called: what is done between them is not counted."""

    def __init__(self):
        self.seconds, self.depth, self.began = 0.0, 0, 0.0

    def enter(self, *_):
        if self.depth == 0:
            self.began = time.thread_time()
        self.depth += 1

    def leave(self, *_):
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.thread_time() - self.began

    @contextmanager
    def counted(self):
        handles = [
            hooks.register_module_forward_pre_hook(self.enter),
            hooks.register_module_forward_hook(self.leave, always_call=True),
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def anatomix_weights(folder):
    from auvtool.extractors.anatomix import AnatomixUNet

    return saved(folder, random_weights({name: tuple(t.shape) for name, t in AnatomixUNet().state_dict().items()}))


def clip_driven_weights(folder):
    from auvtool.extractors.universal_model import UniversalModel

    own = UniversalModel().state_dict()
    index = {name: tensor for name, tensor in own.items() if name.endswith("relative_position_index")}
    return saved(folder, random_weights({n: tuple(t.shape) for n, t in own.items() if n not in index}) | index)


def segvol_weights(folder):
    return saved(folder, {f"module.{name}": tensor for name, tensor in random_weights(FULL_SHAPES).items()})


def medsam2_weights(folder):
    return saved(folder, random_state(build_reference(512), object_score=PRESENT))


def nnunet_weights(folder):
    """nnU-Net's own plan for the hippocampus."""
    network = architecture()
    network["arch_kwargs"] |= {
        "n_stages": 4,
        "features_per_stage": [32, 64, 128, 256],
        "kernel_sizes": [[3] * 3] * 4,
        "strides": [[1] * 3, *[[2] * 3] * 3],
        "n_conv_per_stage": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3,
    }
    return write_run(folder / "RUN", plans_of(patch_size=(40, 56, 40), network=network), labels=HIPPOCAMPUS)


def saved(folder, state):
    torch.save({"model": state}, folder / "weights.pth")
    return folder / "weights.pth"


WEIGHTS = {
    "litemedsam": lambda folder: None,
    "medsam2": medsam2_weights,
    "nnunet": nnunet_weights,
    "anatomix": anatomix_weights,
    "segvol": segvol_weights,
    "clip-driven": clip_driven_weights,
}


@pytest.fixture(scope="module")
def datasets(real_data, tmp_path_factory):
    """Three crops of a CT at 3 mm, and the hippocampus."""
    folder = tmp_path_factory.mktemp("data") / "Dataset001_Crops"
    scans = real_data / "totalseg_examples"
    image, label = (nibabel.load(scans / f"{name}.nii.gz") for name in ("example_ct_sm", "example_seg"))
    values = np.asarray(label.dataobj)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        box = np.s_[10 * number : 10 * number + 100, :, :]
        organs = sum(np.uint8(place) * (values[box] == value) for place, value in enumerate(ORGANS.values(), start=1))
        ct = np.asarray(image.dataobj)[box].astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(ct, image.affine), folder / "imagesTr" / f"ct_{number}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(organs, image.affine), folder / "labelsTr" / f"ct_{number}.nii.gz")
    labels = ", ".join(f'"{name}": {place}' for place, name in enumerate(ORGANS, start=1))
    (folder / "dataset.json").write_text(
        f'{{"channel_names": {{"0": "CT"}}, "labels": {{"background": 0, {labels}}}, "numTraining": 3, '
        '"file_ending": ".nii.gz"}'
    )
    hippocampus = real_data / "hippocampus" / "Dataset004_Hippocampus"
    return {"CT": open_dataset(folder), "MR": open_dataset(hippocampus)}


@pytest.mark.parametrize("name", WHERE)
def test_the_share_of_the_network(datasets, tmp_path, name):
    torch.set_num_threads(1)
    dataset = datasets[WHERE[name]]
    model = ModelOptions(weights=WEIGHTS[name](tmp_path))
    settings = ExtractionSettings(extractor=name, model=model, input="raw", prompt=EXTRACTORS[name].prompts[0])
    ids = [case.case_id for case in dataset.cases]
    # The first case loads the model, whose time is not of the cases; slices that were seen are not encoded again.
    run_extraction(plan_extraction(dataset, settings, tmp_path / "first.h5", case_ids=ids[:1]))
    plan = plan_extraction(dataset, settings, tmp_path / "F.h5", case_ids=ids[1:3])
    began = time.process_time()
    with NetworkTime().counted() as network:
        run_extraction(plan)
    whole = time.process_time() - began
    share = network.seconds / whole
    print(f"\n| {name} | {WHERE[name]} | {network.seconds:.1f} | {whole:.1f} | {share:.2f} |", flush=True)
    assert 0 < share < 1
