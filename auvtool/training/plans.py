"""nnU-Net's plans, with another patch, batch, width or network where the user asks for one."""

import copy
import math
from pathlib import Path
from typing import Any

from auvtool.case_id import case_id_fault
from auvtool.errors import InputError, one_line
from auvtool.json_text import json_text_of, parse_json
from auvtool.training.architecture import set_architecture
from auvtool.training.recipe import Recipe


def read_plans(path: Path) -> dict[str, Any]:
    """A plans file of nnU-Net, with all that is read of it here.

    Raises:
        InputError: it cannot be read, is not JSON, or lacks a part.
    """
    try:
        plans = parse_json(json_text_of(path))
    except (OSError, ValueError) as error:
        raise InputError(path, expected="nnU-Net's plans", found=f"'{one_line(error)}'", cure=_CURE) from error
    fault = _fault(plans)
    if fault:
        raise InputError(path, expected="nnU-Net's plans", found=fault, cure=_CURE)
    return dict(plans)


_CURE = "make them anew with nnUNetv2_plan_experiment"


def _fault(plans: object) -> str | None:
    if not isinstance(plans, dict):
        return "other JSON"
    texts = [key for key in ("dataset_name", "plans_name") if not isinstance(plans.get(key), str)]
    configurations = plans.get("configurations")
    if texts or not isinstance(configurations, dict):
        return f"no {(*texts, 'configurations')[0]}"
    for name in configurations:
        seen, at = [], name
        while at is not None:
            if at in seen or not isinstance(at, str) or not isinstance(configurations.get(at), dict):
                return f"a configuration {name} that inherits from {'itself' if at in seen else at}"
            seen.append(at)
            at = configurations[at].get("inherits_from")
        fault = _configuration_fault(resolved_configuration(plans, name))
        if fault:
            return f"no {fault} in configuration {name}"
    return None


def _configuration_fault(configuration: dict[str, Any]) -> str | None:
    """The first part of a configuration that is not of its type."""
    if configuration.get("previous_stage"):  # of a cascade, which no command here takes
        return None
    for key in ("spacing", "patch_size"):
        value = configuration.get(key)
        if not isinstance(value, list) or len(value) not in {2, 3} or not all(_is_positive(length) for length in value):
            return key
    if not _is_positive(configuration.get("batch_size")):
        return "batch_size"
    identifier = configuration.get("data_identifier")
    if not isinstance(identifier, str) or case_id_fault(identifier):  # the name of a folder that is made
        return "data_identifier that can be the name of a folder"
    return None


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


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
    try:
        set_architecture(configuration, recipe)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            where,
            expected=f"an architecture of nnU-Net's own planner in {recipe.configuration}",
            found=f"'{type(error).__name__}: {one_line(error)}'",
            cure=_CURE,
        ) from error
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
