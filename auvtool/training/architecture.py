"""The architecture in nnU-Net's plans: another width, another patch with its topology, another network."""

from collections.abc import Sequence
from typing import Any

from auvtool.backbones import BACKBONES
from auvtool.errors import UsageError
from auvtool.training.recipe import Recipe

_SMALLEST_FEATURE_MAP = 4  # what nnU-Net's planner keeps at the bottleneck
_MOST_FEATURES = {2: 512, 3: 320}  # its planner's limits by dimension
_SWIN_SIDE = 32  # patches of 2, then half four times
_SWIN_FEATURES = 48  # of its authors
# What U-Mamba shares with the plans of nnU-Net's plain U-Net.
_UMAMBA_KEYS = (
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage"),
    *("n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs"),
)


def set_architecture(configuration: dict[str, Any], recipe: Recipe) -> None:
    """Change a configuration of the plans in place to the patch, width and network that the recipe asks for.

    Raises:
        UsageError: a patch of the wrong dimension.
    """
    dimension = len(configuration["spacing"])
    if recipe.patch_size is not None and len(recipe.patch_size) != dimension:
        given = ",".join(map(str, recipe.patch_size))
        raise UsageError(
            f"--patch-size: expected {dimension} sides for {recipe.configuration}, got {given}; give one for each axis"
        )
    if recipe.backbone == "swin-unetr":
        _set_swin_unetr(configuration, recipe)
        return
    if recipe.patch_size is not None:
        _set_patch(configuration, recipe.patch_size)
    architecture = configuration["architecture"]["arch_kwargs"]
    if recipe.features is not None:
        architecture["features_per_stage"] = _doubling(recipe.features, architecture["n_stages"], dimension)
    if recipe.backbone != "nnunet":
        _set_umamba(configuration, recipe)


def swin_patch_size(patch_size: Sequence[int]) -> list[int]:
    """Sides rounded up to multiples of 32; of 32 only, the last becomes 64.

    Instance normalisation, in training, needs more than the one voxel that 32 to each side leave at the bottleneck.
    """
    sides = [-(-side // _SWIN_SIDE) * _SWIN_SIDE for side in patch_size]
    return [*sides[:-1], 2 * _SWIN_SIDE] if max(sides) == _SWIN_SIDE else sides


def _set_swin_unetr(configuration: dict[str, Any], recipe: Recipe) -> None:
    configuration["patch_size"] = swin_patch_size(recipe.patch_size or configuration["patch_size"])
    configuration["architecture"] = {
        "network_class_name": BACKBONES["swin-unetr"].network_class_name,
        "arch_kwargs": {
            "feature_size": recipe.features or _SWIN_FEATURES,
            "spatial_dims": len(configuration["spacing"]),
        },
        "_kw_requires_import": [],
    }


def _set_umamba(configuration: dict[str, Any], recipe: Recipe) -> None:
    planned = configuration["architecture"]
    arguments = planned["arch_kwargs"]
    n_stages = arguments["n_stages"]
    # Plans of a residual encoder have many blocks a stage; U-Mamba's authors started from plain ones, which have two.
    usual = {"n_conv_per_stage": [2] * n_stages, "n_conv_per_stage_decoder": [2] * (n_stages - 1)}
    if "n_conv_per_stage" not in arguments:
        arguments = {**arguments, **usual}
    kept = {key: arguments[key] for key in _UMAMBA_KEYS}
    configuration["architecture"] = {
        "network_class_name": BACKBONES[recipe.backbone].network_class_name,
        "arch_kwargs": kept if recipe.backbone == "umamba" else {**kept, "patch_size": configuration["patch_size"]},
        "_kw_requires_import": [key for key in planned["_kw_requires_import"] if key in kept],
    }


def _set_patch(configuration: dict[str, Any], patch_size: tuple[int, ...]) -> None:
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    spacing = configuration["spacing"]
    _, strides, kernel_sizes, patch, _ = get_pool_and_conv_props(spacing, patch_size, _SMALLEST_FEATURE_MAP, 999999)
    architecture = configuration["architecture"]["arch_kwargs"]
    n_stages = len(strides)
    for key in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if key in architecture:
            wanted = n_stages - (key == "n_conv_per_stage_decoder")
            given = list(architecture[key])
            architecture[key] = (given + given[-1:] * wanted)[:wanted]
    architecture["features_per_stage"] = _doubling(architecture["features_per_stage"][0], n_stages, len(spacing))
    architecture["n_stages"] = n_stages
    architecture["strides"] = [[int(step) for step in stage] for stage in strides]
    architecture["kernel_sizes"] = [[int(side) for side in stage] for stage in kernel_sizes]
    configuration["patch_size"] = [int(side) for side in patch]


def _doubling(first: int, n_stages: int, dimension: int) -> list[int]:
    return [min(_MOST_FEATURES[dimension], first * 2**stage) for stage in range(n_stages)]
