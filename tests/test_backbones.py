"""Networks, their place in nnU-Net's plans, and what they need."""

import copy
import math
import pydoc

import pytest
import torch
from torch import nn

from auvtool import backbones
from auvtool.backbones import BACKBONES, require_package, require_scan
from auvtool.errors import UsageError
from auvtool.training.architecture import swin_patch_size
from auvtool.training.noise import attach_noise_head, is_noise_parameter
from auvtool.training.plans import adapted_plans
from auvtool.training.recipe import Recipe


def plans(*, dimension=3, residual=False):
    """nnU-Net's plans of one configuration, `3d_fullres` or `2d`, with all that they say of the network."""
    stages = ["n_conv_per_stage", "n_blocks_per_stage"][residual]
    architecture = {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [[3] * dimension] * 6,
        "strides": [[1] * dimension, *[[2] * dimension] * 5],
        stages: [1, 3, 4, 6, 6, 6] if residual else [2] * 6,
        "n_conv_per_stage_decoder": [1 if residual else 2] * 5,
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": 2,
        "patch_size": [96] * dimension,
        "spacing": [1.0] * dimension,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": architecture,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    name = "3d_fullres" if dimension == 3 else "2d"
    return {"dataset_name": "Dataset900_Balls", "plans_name": "nnUNetPlans", "configurations": {name: configuration}}


def configuration(recipe, **options):
    return adapted_plans(plans(**options), recipe)["configurations"][recipe.configuration]


def network(recipe, *, n_outputs=3, deep_supervision=False, **options):
    """As nnU-Net's trainer and predictor build it."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = configuration(recipe, **options)["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        n_outputs,
        deep_supervision=deep_supervision,
    )


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


# --- the table, and what a network needs


@pytest.mark.parametrize("name", BACKBONES)
def test_every_class_is_where_the_table_says(name):
    assert issubclass(pydoc.locate(BACKBONES[name].network_class_name), nn.Module)


def test_a_missing_package_is_one_line_with_the_cure(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"swin-unetr: expected the package monai, .*pip install 'auvtool\[monai\]'"):
        require_package(BACKBONES["swin-unetr"].network_class_name)
    require_package(BACKBONES["umamba"].network_class_name)
    require_package("dynamic_network_architectures.architectures.unet.PlainConvUNet")


def test_a_long_scan_needs_the_kernel(monkeypatch):
    require_scan("umamba-enc", patch_size=(64, 64, 64), device="cpu")
    for name in ("umamba", "swin-unetr", "nnunet"):
        require_scan(name, patch_size=(96, 96, 96), device="cpu")
    monkeypatch.setattr(backbones, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"at most 262144 voxels .*, got 884736 voxels on cuda and no mamba_ssm"):
        require_scan("umamba-enc", patch_size=(96, 96, 96), device="cuda")
    monkeypatch.setattr(backbones, "find_spec", lambda _: object())
    require_scan("umamba-enc", patch_size=(96, 96, 96), device="cuda:1")
    with pytest.raises(UsageError, match="on cpu; "):
        require_scan("umamba-enc", patch_size=(96, 96, 96), device="cpu")


# --- plans


def test_the_plans_name_the_network_and_keep_the_rest():
    original = plans()
    before = copy.deepcopy(original)
    changed = adapted_plans(original, Recipe(backbone="umamba"))
    assert original == before
    assert changed["plans_name"] == "nnUNetPlans_auvtool"
    new, old = (item["configurations"]["3d_fullres"] for item in (changed, original))
    assert {key: new[key] for key in new if key != "architecture"} == {
        key: old[key] for key in old if key != "architecture"
    }
    assert new["architecture"]["network_class_name"] == "auvtool.backbones.umamba.UMambaBot"


def test_enc_knows_the_patch_and_its_topology():
    new = configuration(Recipe(backbone="umamba-enc", patch_size=(33, 64, 16), features=8, batch_size=5))
    assert (new["patch_size"], new["batch_size"]) == ([40, 64, 16], 5)
    arguments = new["architecture"]["arch_kwargs"]
    assert arguments["patch_size"] == [40, 64, 16]
    assert arguments["features_per_stage"] == [8, 16, 32, 64]


def test_residual_plans_give_the_published_blocks():
    arguments = configuration(Recipe(backbone="umamba"), residual=True)["architecture"]["arch_kwargs"]
    assert arguments["n_conv_per_stage"] == [2] * 6
    assert arguments["n_conv_per_stage_decoder"] == [2] * 5
    assert "n_blocks_per_stage" not in arguments


@pytest.mark.parametrize(
    ("given", "rounded"),
    [
        ((96, 96, 96), [96, 96, 96]),
        ((40, 56, 33), [64, 64, 64]),
        ((16, 65, 32), [32, 96, 32]),
        ((32, 32, 32), [32, 32, 64]),
        ((20, 20), [32, 64]),
    ],
)
def test_sides_for_swin_unetr(given, rounded):
    assert swin_patch_size(given) == rounded


def test_swin_unetr_takes_patch_and_features():
    new = configuration(Recipe(backbone="swin-unetr", patch_size=(40, 56, 40), features=24))
    assert new["patch_size"] == [64, 64, 64]
    assert new["architecture"] == {
        "network_class_name": "auvtool.backbones.swin_unetr.SwinUNETRV2",
        "arch_kwargs": {"feature_size": 24, "spatial_dims": 3},
        "_kw_requires_import": [],
    }
    with pytest.raises(UsageError, match="multiple of 12"):
        Recipe(backbone="swin-unetr", features=32)
    with pytest.raises(UsageError, match="3 sides"):
        configuration(Recipe(backbone="swin-unetr", patch_size=(32, 32)))


def test_an_old_recipe_is_nnunets():
    recorded = {key: value for key, value in Recipe().to_dict().items() if key != "backbone"}
    assert Recipe.from_dict(recorded) == Recipe(backbone="nnunet")


# --- networks


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        # At 96 x 96 x 96 with three outputs; U-Mamba's are those of the released classes to the last one.
        (Recipe(backbone="swin-unetr"), 72_762_117),
        (Recipe(backbone="umamba"), 42_121_199),
        (Recipe(backbone="umamba-enc"), 42_366_957),
    ],
    ids=lambda value: getattr(value, "backbone", ""),
)
def test_full_size_has_the_published_number_of_parameters(recipe, expected):
    assert n_parameters(network(recipe)) == expected


# What the released classes (bowang-lab/U-Mamba 28459e3, with the Mamba of state-spaces/mamba e9594ce on its
# reference scan) give for the weights and the image below: number of parameters, mean and deviation of each output.
RELEASED = {
    ("umamba", 3): (134_206, [-0.27785, -0.24517, -0.10359], [0.59652, 1.01690, 1.21123]),
    ("umamba-enc", 3): (138_910, [-0.17229, -0.12213, -0.01831], [0.57530, 1.05516, 1.29520]),
    ("umamba", 2): (52_782, [-0.30389, -0.20494, -0.01515], [0.55193, 0.44310, 0.58026]),
    ("umamba-enc", 2): (50_446, [-0.28718, -0.20660, -0.03444], [0.53570, 0.42611, 0.59799]),
}


@pytest.mark.parametrize(("backbone", "dimension"), RELEASED)
def test_umamba_computes_what_the_released_network_does(backbone, dimension):
    expected, means, deviations = RELEASED[backbone, dimension]
    module = small(backbone, dimension)
    assert n_parameters(module) == expected
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "A_log" not in name:
                wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 0.7 + len(name))
                wave = wave.reshape(parameter.shape)
                if parameter.ndim > 1:
                    parameter.copy_(wave / math.sqrt(parameter[0].numel()))
                else:
                    parameter.copy_(1 + 0.1 * wave if name.endswith("weight") else 0.1 * wave)
        shape = PATCHES[dimension]
        image = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.3).float().reshape(1, 1, *shape)
        logits = module(image)[0].flatten(1)
    assert logits.mean(1).tolist() == pytest.approx(means, abs=1e-4)
    assert logits.std(1).tolist() == pytest.approx(deviations, abs=1e-4)


PATCHES = {3: (8, 16, 16), 2: (16, 24)}


def small(backbone, dimension, *, deep_supervision=False):
    """U-Mamba of three stages; at its bottleneck channels are the tokens."""
    original = plans(dimension=dimension)
    (name,) = original["configurations"]
    planned = original["configurations"][name]
    planned["patch_size"] = list(PATCHES[dimension])
    arguments = planned["architecture"]["arch_kwargs"]
    arguments |= {"n_stages": 3, "features_per_stage": [8, 16, 32], "n_conv_per_stage": [2] * 3}
    arguments |= {"n_conv_per_stage_decoder": [2] * 2, "kernel_sizes": [[3] * dimension] * 3}
    arguments |= {"strides": [[1] * dimension, *[[2] * dimension] * 2]}
    changed = adapted_plans(original, Recipe(backbone=backbone, configuration=name))["configurations"][name]
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = changed["architecture"]
    torch.manual_seed(0)
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        3,
        deep_supervision=deep_supervision,
    )


@pytest.mark.parametrize("backbone", ["umamba", "umamba-enc"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_umamba_supervises_every_resolution_and_can_be_told_not_to(backbone, dimension):
    module = small(backbone, dimension, deep_supervision=True)
    image = torch.randn(1, 1, *PATCHES[dimension])
    outputs = module(image)
    assert [tuple(output.shape[2:]) for output in outputs] == [
        tuple(side // 2**level for side in PATCHES[dimension]) for level in range(2)
    ]
    module.decoder.deep_supervision = False  # as nnU-Net's trainer does
    assert torch.equal(module(image), outputs[0])


def test_mamba_stays_in_single_precision():
    from auvtool.backbones.umamba import MambaLayer

    layer, features = MambaLayer(8), torch.randn(1, 8, 4, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(features.bfloat16())
    assert found.dtype == torch.float32
    assert torch.equal(found, layer(features.bfloat16().float()))


@pytest.mark.parametrize("dimension", [2, 3])
def test_swin_unetr_is_monais_with_one_output(dimension):
    from monai.networks.nets import SwinUNETR

    from auvtool.backbones.swin_unetr import SwinUNETRV2

    module = SwinUNETRV2(1, 3, False, feature_size=12, spatial_dims=dimension)
    theirs = SwinUNETR(1, 3, feature_size=12, spatial_dims=dimension, use_v2=True)
    theirs.load_state_dict(module.state_dict())
    module.decoder.deep_supervision = True  # nnU-Net's trainer sets it; nothing changes
    if dimension == 2:
        image = torch.randn(1, 1, 32, 64)
        assert torch.equal(module.eval()(image), theirs.eval()(image))
    with pytest.raises(ValueError, match="deep_supervision False"):
        SwinUNETRV2(1, 3, True, feature_size=12)


@pytest.mark.parametrize("backbone", ["umamba", "umamba-enc", "swin-unetr"])
def test_the_noise_head_stands_beside_the_last_convolution(backbone):
    if backbone == "swin-unetr":
        module = network(Recipe(backbone=backbone, configuration="2d", features=12), dimension=2)
        holder, image = "out.conv.conv", torch.randn(1, 1, 32, 64)
    else:
        module, holder, image = small(backbone, 2), "decoder.seg_layers.1", torch.randn(1, 1, *PATCHES[2])
    names, expected = list(module.state_dict()), module.eval()(image)
    attach_noise_head(module, n_classes=2)
    assert {name for name in module.state_dict() if is_noise_parameter(name)} == {
        f"{holder}.noise.weight",
        f"{holder}.noise.bias",
    }
    assert [name for name in module.state_dict() if not is_noise_parameter(name)] == names
    assert torch.equal(module.eval()(image), expected)
    assert module.train()(image).shape[1] == 5
