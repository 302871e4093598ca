"""nnU-Net's plans, with another patch, batch or width where the user asks for one."""

import copy
from typing import Any

from auvtool.errors import InputError
from auvtool.training.recipe import Recipe

_SMALLEST_FEATURE_MAP = 4  # what nnU-Net's planner keeps at the bottleneck
_MOST_FEATURES = {2: 512, 3: 320}  # its planner's limits by dimension


def adapted_plans(plans: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A copy of `plans` for one training; `plans` itself where the recipe asks for nothing else.

    The copy has another plans_name and the same data_identifier, so that the preprocessed data are shared. A new patch
    gets the network topology that nnU-Net's planner would give it, which may round its sides up.

    Raises:
        InputError: no such configuration, a cascade, or a patch of the wrong dimension.
    """
    where = f"{recipe.plans_name}.json of {plans['dataset_name']}"
    configurations = plans["configurations"]
    if recipe.configuration not in configurations:
        raise InputError(
            where,
            expected=f"a configuration among {', '.join(configurations)}",
            found=recipe.configuration,
            cure="choose one with --configuration",
        )
    resolved = _resolved(configurations, recipe.configuration)
    if resolved.get("previous_stage"):
        raise InputError(
            where,
            expected="a configuration that stands alone",
            found=f"the cascade {recipe.configuration}",
            cure="choose 3d_fullres",
        )
    if recipe.batch_size is None and recipe.patch_size is None and recipe.features is None:
        return plans
    configuration = copy.deepcopy(resolved)
    if recipe.patch_size is not None:
        _set_patch(configuration, recipe.patch_size, where)
    if recipe.batch_size is not None:
        configuration["batch_size"] = recipe.batch_size
    if recipe.features is not None:
        architecture = configuration["architecture"]["arch_kwargs"]
        architecture["features_per_stage"] = _doubling(
            recipe.features, architecture["n_stages"], len(configuration["spacing"])
        )
    return {
        **copy.deepcopy(plans),
        "plans_name": plans["plans_name"] + "_auvtool",
        "configurations": {recipe.configuration: configuration},
    }


def _resolved(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits written out."""
    configuration = configurations[name]
    parent = configuration.get("inherits_from")
    if parent is None:
        return dict(configuration)
    own = {key: value for key, value in configuration.items() if key != "inherits_from"}
    return {**_resolved(configurations, parent), **own}


def _set_patch(configuration: dict[str, Any], patch_size: tuple[int, ...], where: str) -> None:
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    spacing = configuration["spacing"]
    if len(patch_size) != len(spacing):
        raise InputError(
            where, expected=f"--patch-size with {len(spacing)} sides", found=patch_size, cure="give one for each axis"
        )
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
