"""Weights of foundation models: found, and checked by SHA-256; `auvtool.checkpoint` reads them."""

import hashlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from auvtool.errors import InputError, UsageError
from auvtool.extractors.facts import ExtractorFacts, WeightsInPackage


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights and the SHA-256 of its bytes; of several, the first, and that of their digests in order."""

    path: Path
    sha256: str


def find_weights(facts: ExtractorFacts, given: Path | None) -> WeightsFile | None:
    """The weights file that an extractor will load: `given`, or the one in its package; None if it has no weights.

    Weights of several files, such as a results folder of nnU-Net, are those that `facts` lists.

    Nothing is imported from the package.

    Raises:
        UsageError: the model's weights are in no package, and no file is given.
        InputError: the file cannot be read, the package is missing, or its weights are not those we know.
    """
    if facts.weights_files:
        digests = "".join(_sha256(path) for path in facts.weights_files)
        return WeightsFile(facts.weights_files[0], hashlib.sha256(digests.encode()).hexdigest())
    if given is not None:
        return WeightsFile(given, _sha256(given))
    if facts.weights is None:
        if facts.needs_weights:
            raise UsageError(
                f"--weights: expected a checkpoint, got none; get one ({facts.description.source}) and name the file"
            )
        return None
    return file_of_package(facts.weights, what="the model's weights", otherwise=", or name a file with --weights")


def file_of_package(source: WeightsInPackage, *, what: str, otherwise: str = "") -> WeightsFile:
    """The file that a package carries, found without importing anything of the package.

    Args:
        source: which file.
        what: it is, in an error.
        otherwise: what else than installing the package helps, in an error.

    Raises:
        InputError: the package is missing, or the file is not the one we know.
    """
    spec = importlib.util.find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            source.distribution,
            expected=f"the package with {what}",
            found="none",
            cure=f"pip install {source.distribution}{otherwise}",
        )
    path = Path(spec.submodule_search_locations[0]) / source.path
    digest = _sha256(path)
    if digest != source.sha256:
        trusted = f"{otherwise} if you trust it" if otherwise else ""
        raise InputError(
            path,
            expected=f"{what} with SHA-256 {source.sha256[:12]}...",
            found=f"{digest[:12]}...",
            cure=f"install {source.distribution} again{trusted}",
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


def _sha256(path: Path) -> str:
    if path.exists() and not (path.is_file() or path.is_dir()):  # it is read twice, and a device may have no end
        raise InputError(path, expected="a weights file", found="a pipe or a device", cure="write it to a file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            path, expected="a weights file", found=f"'{error.strerror}'", cure="check --weights"
        ) from error
