"""nnU-Net results folders with random weights, of any architecture: what the network makes of an image is all noise."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from auvtool.extractors import load_extractor
from auvtool.extractors.facts import facts_with
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.nnunet import TrainedNnUNet

Plans = dict[str, Any]
_CONVOLUTIONS = {
    "n_stages": 3,
    "features_per_stage": [6, 8, 10],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
LABELS = {"background": 0, "organ": 1, "lesion": 2}


def architecture(name: str = "PlainConvUNet", *, dimension: int = 3) -> Plans:
    """One of nnU-Net's own networks, three stages deep, in the words of its plans."""
    blocks = "n_blocks_per_stage" if name.startswith("Residual") else "n_conv_per_stage"
    sizes = {
        "kernel_sizes": [[3] * dimension] * 3,
        "strides": [[1] * dimension, *[[2] * dimension] * 2],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
    }
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {**_CONVOLUTIONS, **sizes, blocks: [1, 1, 1]},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans_of(
    *,
    patch_size: tuple[int, ...] = (16, 16, 16),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    transpose: tuple[int, int, int] = (0, 1, 2),
    reader: str = "SimpleITKIO",
    n_channels: int = 1,
    network: Plans | None = None,
) -> Plans:
    """nnU-Net's plans of one configuration, whose name is `net`."""
    resampling = {
        f"resampling_fn_{what}": {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
    }
    statistics = {"mean": 20.0, "std": 60.0, "percentile_00_5": -50.0, "percentile_99_5": 250.0}
    return {
        "dataset_name": "Dataset900_Balls",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): statistics for channel in range(n_channels)},
        "configurations": {
            "net": {
                "data_identifier": "net",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(patch_size),
                "spacing": list(spacing),
                "normalization_schemes": ["CTNormalization", *["ZScoreNormalization"] * (n_channels - 1)],
                "use_mask_for_norm": [False] * n_channels,
                **dict.fromkeys(resampling, "resample_data_or_seg_to_shape"),
                **{f"{name}_kwargs": options for name, options in resampling.items()},
                "architecture": network or architecture(dimension=len(patch_size)),
                "batch_dice": False,
            }
        },
    }


def write_run(
    folder: Path, plans: Plans, *, labels: Plans = LABELS, change: Callable[[Plans], None] = lambda _: None
) -> Path:
    """A results folder with one fold; `change` may change its checkpoint before it is written."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    has_regions = any(isinstance(value, list) for value in labels.values())
    dataset_json = {
        "channel_names": {name: name for name in plans["foreground_intensity_properties_per_channel"]},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **({"regions_class_order": [1, 2]} if has_regions else {}),
    }
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    network = copy.deepcopy(plans["configurations"]["net"]["architecture"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = get_network_from_plans(
            network["network_class_name"],
            network["arch_kwargs"],
            network["_kw_requires_import"],
            len(dataset_json["channel_names"]),
            len(labels) - has_regions,
            deep_supervision=False,
        )
    checkpoint = {
        "network_weights": built.state_dict(),
        "init_args": {"configuration": "net"},
        "trainer_name": "nnUNetTrainer",
    }
    change(checkpoint)
    torch.save(checkpoint, folder / "fold_0/checkpoint_final.pth")
    return folder


def extractor_of(run: Path, **options) -> TrainedNnUNet:
    """The extractor nnunet with such a folder as weights."""
    loaded = load_extractor("nnunet", ModelOptions(weights=run, **options), device="cpu")
    assert isinstance(loaded, TrainedNnUNet)
    return loaded


def facts(run: Path, **options):
    """What `extract` knows of it before it is loaded."""
    return facts_with("nnunet", ModelOptions(weights=run, **options))
