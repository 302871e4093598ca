"""nnU-Net's plans, with another patch, batch, width or network where the user asks for one."""

import copy
from typing import Any

from auvtool.errors import InputError
from auvtool.training.architecture import set_architecture
from auvtool.training.recipe import Recipe


def adapted_plans(plans: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A copy of `plans` for one training; `plans` itself where the recipe asks for nothing else.

    The copy has another plans_name and the same data_identifier, so that the preprocessed data are shared. A new patch
    gets the network topology that nnU-Net's planner would give it, which may round its sides up; see also
    `swin_patch_size`.

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
    resolved = resolved_configuration(plans, recipe.configuration)
    if resolved.get("previous_stage"):
        raise InputError(
            where,
            expected="a configuration that stands alone",
            found=f"the cascade {recipe.configuration}",
            cure="choose 3d_fullres",
        )
    wishes = (recipe.batch_size, recipe.patch_size, recipe.features)
    if recipe.backbone == "nnunet" and wishes == (None, None, None):
        return plans
    configuration = copy.deepcopy(resolved)
    set_architecture(configuration, recipe, where)
    if recipe.batch_size is not None:
        configuration["batch_size"] = recipe.batch_size
    return {
        **copy.deepcopy(plans),
        "plans_name": plans["plans_name"] + "_auvtool",
        "configurations": {recipe.configuration: configuration},
    }


def resolved_configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits written out."""
    configuration: dict[str, Any] = plans["configurations"][name]
    parent = configuration.get("inherits_from")
    if parent is None:
        return dict(configuration)
    own = {key: value for key, value in configuration.items() if key != "inherits_from"}
    return {**resolved_configuration(plans, parent), **own}
