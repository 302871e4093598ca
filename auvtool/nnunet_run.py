"""A nnU-Net results folder: its checkpoints, its plans, and the network that they make together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auvtool.backbones import require_package
from auvtool.checkpoint import is_state_dict, load_checkpoint
from auvtool.errors import InputError, one_line
from auvtool.json_text import json_text_of, parse_json

if TYPE_CHECKING:
    import torch

# What stands beside the folders of the folds, and what a network is built from.
PLANS, DATASET_JSON = "plans.json", "dataset.json"
FINAL_CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class RunNetwork:
    """The network of a results folder, on the CPU, with the weights of its first checkpoint.

    Attributes:
        network: one output, of full resolution.
        checkpoints: what the checkpoint files hold; see `read_checkpoint`.
        plans: nnU-Net's PlansManager.
        configuration: its ConfigurationManager.
        dataset_json: of the data set that it was trained on.
        n_channels: of an image.
    """

    network: Any
    checkpoints: tuple[dict[str, Any], ...]
    plans: Any
    configuration: Any
    dataset_json: dict[str, Any]
    n_channels: int


def find_checkpoints(run: Path, *, name: str, folds: Sequence[str] | None = None) -> tuple[Path, ...]:
    """The checkpoint `name` of the given folds, or of every fold of `run` that has it.

    Raises:
        InputError: `run` is no results folder, or a fold lacks the checkpoint.
    """
    for required in (PLANS, DATASET_JSON):
        if not (run / required).is_file():
            raise InputError(
                run,
                expected=f"a results folder with plans.json, dataset.json and fold_*, as {run.name}/fold_0/{name}",
                found=f"no {required}",
                cure="name the folder that train wrote",
            )
    wanted = [run / f"fold_{fold}" for fold in folds] if folds else sorted(run.glob("fold_*"))
    found = [folder / name for folder in wanted if (folder / name).is_file()]
    missing = [folder.name for folder in wanted if not (folder / name).is_file()]
    if not found or (folds and missing):
        others = sorted({path.name for folder in wanted for path in folder.glob("*.pth")})
        raise InputError(
            run,
            expected=f"{name} in {', '.join(missing) or 'fold_*'}",
            found=", ".join(others) or "none",
            cure="let the training finish, or name another --checkpoint" if others else "train first",
        )
    return tuple(found)


def read_checkpoint(path: Path, *, device: "torch.device | str" = "cpu", trust: bool = False) -> dict[str, Any]:
    """A nnU-Net checkpoint, its tensors on `device`.

    Nothing but tensors, plain values and the numpy scalars of nnU-Net's log is unpickled, unless it is to be trusted: a
    checkpoint from elsewhere could otherwise run any code.

    Raises:
        InputError: the file is missing, broken, holds other objects, or is no nnU-Net checkpoint.
    """
    checkpoint = load_checkpoint(path, device=device, trust=trust)
    if not isinstance(checkpoint, dict) or not {"network_weights", "init_args", "trainer_name"} <= set(checkpoint):
        raise InputError(path, expected="a checkpoint of nnU-Net", found="another file", cure="name a nnU-Net run")
    if not is_state_dict(checkpoint["network_weights"]):
        raise InputError(
            path, expected="weights by name under network_weights", found="something else", cure="name a nnU-Net run"
        )
    return dict(checkpoint)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        content = parse_json(json_text_of(path))
    except (OSError, ValueError) as error:
        raise InputError(path, expected="readable JSON", found=f"'{one_line(error)}'", cure="check the file") from error
    if not isinstance(content, dict):
        raise InputError(path, expected="a JSON object", found="other JSON", cure="check the file")
    return content


def load_network(run: Path, checkpoints: Sequence[Path], *, trust: bool = False) -> RunNetwork:
    """The network that a results folder's plans and checkpoints describe; nnU-Net prints while it is built.

    Args:
        run: results folder with plans.json and dataset.json.
        checkpoints: see `find_checkpoints`.
        trust: unpickle whatever the checkpoints hold, which can run any code.

    Raises:
        InputError: a file is broken, a checkpoint holds more than tensors and plain values, its weights are not of this
            network, or the configuration is a cascade.
        UsageError: the network needs a package that is not installed.
    """
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset_json = (read_json(run / name) for name in (PLANS, DATASET_JSON))
    loaded = tuple(read_checkpoint(path, trust=trust) for path in checkpoints)
    manager = PlansManager(plans)
    try:
        configuration = manager.get_configuration(loaded[0]["init_args"]["configuration"])
        if configuration.previous_stage_name is not None:
            raise InputError(
                run,
                expected="a configuration that stands alone",
                found="a cascade",
                cure="predict with nnUNetv2_predict",
            )
        n_channels = determine_num_input_channels(manager, configuration, dataset_json)
        network = _build(loaded[0]["trainer_name"], manager, configuration, n_channels, dataset_json)
    except (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            run / PLANS,
            expected=f"plans that describe the network of {checkpoints[0].name}",
            found=f"'{type(error).__name__}: {one_line(error)[:200]}'",
            cure="keep checkpoints with the plans they were trained with",
        ) from error
    for path, checkpoint in zip(checkpoints, loaded, strict=True):
        try:
            network.load_state_dict(checkpoint["network_weights"])
        except RuntimeError as error:
            raise InputError(
                path,
                expected="weights of the network in plans.json",
                found=f"'{one_line(error)[:200]}'",
                cure="keep checkpoints with the plans they were trained with",
            ) from error
    network.load_state_dict(loaded[0]["network_weights"])
    return RunNetwork(network, loaded, manager, configuration, dataset_json, n_channels)


def _build(trainer_name: str, manager: Any, configuration: Any, n_channels: int, dataset_json: dict[str, Any]) -> Any:
    n_heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    require_package(configuration.network_arch_class_name)
    _check_classes(configuration)
    if trainer_name == "nnUNetTrainer":
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        return get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            n_channels,
            n_heads,
            allow_init=True,
            deep_supervision=False,
        )
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    trainer = recursive_find_trainer_class_by_name(trainer_name)
    return trainer.build_network_architecture(
        manager, configuration, n_channels, n_heads, enable_deep_supervision=False
    )


def _check_classes(configuration: Any) -> None:
    """Raise ValueError if a dotted path of the plans, which nnU-Net would call, names no network and no layer.

    What names nothing is left to nnU-Net, which looks for networks that have moved.
    """
    import pydoc

    from torch import nn

    arguments = configuration.network_arch_init_kwargs
    layers = {name: arguments[name] for name in configuration.network_arch_init_kwargs_req_import}
    for key, name in {"network_class_name": configuration.network_arch_class_name, **layers}.items():
        found = None if name is None else pydoc.locate(name)
        if found is not None and not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ValueError(f"{key} {name} is no class of torch.nn.Module")
