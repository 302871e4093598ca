"""Checkpoints read as data: tensors and plain values, never code.

A pickle can run anything when it is loaded. torch's own reader of tensors and plain values is used, with the numpy
scalars of nnU-Net's log allowed besides; safetensors files hold nothing else to begin with. What asks for more is
refused by name, unless the user says that the file is to be trusted.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auvtool.errors import InputError, one_line
from auvtool.file_limits import require_stored_zip

if TYPE_CHECKING:
    import torch

_SAFETENSORS = ".safetensors"
# Where the makers of foundation models and trainers keep the weights within a checkpoint.
_STATE_KEYS = ("model", "state_dict", "net", "network_weights")
_PARALLEL = "module."


def load_checkpoint(path: Path, *, device: "torch.device | str" = "cpu", trust: bool = False) -> Any:
    """What a checkpoint holds, its tensors on `device`.

    Args:
        path: a file that torch.save wrote, or a .safetensors file.
        device: where the tensors go.
        trust: unpickle whatever it holds, which can run any code.

    Raises:
        InputError: it cannot be read, or would run code when loaded; the objects that it asks for are named.
    """
    import torch

    try:
        if path.suffix.lower() == _SAFETENSORS:
            return _read_safetensors(path, device)
        require_stored_zip(path)
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle that is refused in the next moment
            # Mapped, so that an optimiser's state beside the weights is never read; old files are no archives.
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location=device, weights_only=not trust, mmap=mapped)
    except OSError as error:
        raise InputError(
            path,
            expected="a readable checkpoint",
            found=f"'{error.strerror or one_line(error)}'",
            cure="check the path",
        ) from error
    except InputError:
        raise
    except Exception as error:  # a broken file fails anywhere within the unpickler
        unsafe = [] if trust else _unsafe_globals(path, error)
        raise InputError(
            path,
            expected="a checkpoint of tensors and plain values",
            found=f"objects of {', '.join(unsafe)}" if unsafe else _described(error),
            cure="save its state dict alone; where the command has --trust-checkpoint and the file is your own, add it"
            if unsafe
            else "check that the file is whole",
        ) from error


def read_weights(path: Path, *, device: "torch.device | str" = "cpu", trust: bool = False) -> "dict[str, Any]":
    """The weights of a checkpoint by name: its own, or those under "model", "state_dict", "net" or "network_weights".

    The "module." that training on several GPUs puts before each name is taken off.

    Raises:
        InputError: see `load_checkpoint`, or it holds no tensors.
    """
    checkpoint = load_checkpoint(path, device=device, trust=trust)
    state = checkpoint
    for key in _STATE_KEYS:
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            state = checkpoint[key]
            break
    if not is_state_dict(state):
        raise InputError(path, expected="a state dict", found="something else", cure="name a checkpoint of weights")
    if all(name.startswith(_PARALLEL) for name in state):
        return {name.removeprefix(_PARALLEL): tensor for name, tensor in state.items()}
    return dict(state)


def is_state_dict(state: object) -> bool:
    """Whether it is tensors by name, one at least."""
    import torch

    return (
        isinstance(state, dict)
        and bool(state)
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items())
    )


def load_strictly(network: "torch.nn.Module", state: "dict[str, Any]", path: Path, *, expected: str) -> None:
    """Put weights into a network, each of them and no other.

    Raises:
        InputError: names or shapes are another network's; it says how many, and the first of them.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing, surplus = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    differing = [name for name in own if name in given and own[name] != given[name]]
    if not missing and not surplus and not differing:
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:  # sparse, quantised or without values
            raise InputError(
                path,
                expected=f"{expected} as plain numbers",
                found=f"'{one_line(error).rpartition(' occurred : ')[2][:160]}'",
                cure="check --weights",
            ) from error
        return
    texts = [
        f"{len(names)} weights {what}, such as {names[0]}"
        for what, names in (("missing", missing), ("too many", surplus), ("of another shape", differing))
        if names
    ]
    raise InputError(path, expected=expected, found="; ".join(texts), cure="check --weights")


def _described(error: Exception) -> str:
    """What the readers of archives say; what an unpickler stumbled over in another file helps nobody."""
    return f"'{one_line(error)[:120]}'" if isinstance(error, RuntimeError | ValueError) else "another or a broken file"


def _read_safetensors(path: Path, device: "torch.device | str") -> "dict[str, torch.Tensor]":
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(
            path, expected="the package safetensors to read it", found="none", cure="pip install safetensors"
        ) from error
    tensors: dict[str, torch.Tensor] = load_file(path, device=str(device))
    return tensors


def _unsafe_globals(path: Path, error: Exception) -> list[str]:
    """What a checkpoint asks for that is not allowed; of one that is no archive the first, which `error` names."""
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a file of before torch 1.6, or not even a pickle
        return re.findall(r"GLOBAL (\S+)", str(error))[:1] if isinstance(error, pickle.UnpicklingError) else []


def _numpy_scalars() -> list[Any]:
    """What nnU-Net's own log pickles, under the names of numpy 1 and 2."""
    import numpy as np
    from numpy._core.multiarray import scalar

    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float32DType,
        np.dtypes.Float64DType,
    ]
