"""MedSAM2 in `extract`: weights, packages and options that are refused, and real cases up to their score."""

import json
import shutil
import sys
import types
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from pickled_code import RunsCode
from sam2_reference import PRESENT
from typer.testing import CliRunner

from auvtool.case_extraction import ExtractionSettings
from auvtool.cli.app import app
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors import load_extractor, medsam2_network
from auvtool.extractors.medsam2_keys import transformers_names
from auvtool.extractors.model_options import ModelOptions, parse_window
from auvtool.feature_store import FeatureFile
from auvtool.schema import SCORES
from auvtool.tables import read_table


def test_strange_weights_are_refused_in_one_line(load_medsam2, medsam2_weights, tmp_path: Path, capsys) -> None:
    weights = torch.load(medsam2_weights(PRESENT), weights_only=True)["model"]
    good = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in weights.items()}  # small files
    trunk = "image_encoder.trunk."

    def blocks(n_blocks: int, n_channels: int) -> dict[str, torch.Tensor]:
        more = {f"{trunk}blocks.{n}.norm1.weight": torch.ones(1) for n in range(12, n_blocks)}
        return good | more | {f"{trunk}patch_embed.proj.weight": torch.zeros(n_channels, 3, 7, 7)}

    kinds = {
        "EfficientTAM": {n: t for n, t in good.items() if n != f"{trunk}pos_embed_window"},
        "small": blocks(16, 96),
        "base-plus": blocks(24, 112),
        "large": blocks(48, 144),
        "SAM 2.0": {n: t for n, t in good.items() if n != "no_obj_embed_spatial"},
        "first SAM": {"image_encoder.patch_embed.proj.weight": torch.zeros(2)},
        "transformers": transformers_names(good, with_memory=True),
        "1 weights missing": {n: t for n, t in good.items() if n != "no_mem_embed"},
        "1 weights too many": good | {"head.weight": torch.zeros(1)},
        "of another shape": good | {"no_mem_embed": torch.zeros(1, 1, 8)},
        "308 weights of another shape": dict.fromkeys(good, torch.zeros(())),
        "point_embed.weight": good | {"sam_prompt_encoder.point_embeddings.1.weight": torch.zeros(2)},
        "print": {"a": RunsCode()},
    }
    path = tmp_path / "w.pt"
    for found, state in kinds.items():
        torch.save({"model": state}, path)
        with pytest.raises(InputError, match=found) as caught:
            load_extractor("medsam2", ModelOptions(weights=path), device="cpu")
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


def test_without_the_package_or_with_an_old_one_the_cure_is_a_command(
    load_medsam2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medsam2_network.metadata, "version", lambda name: "4.56.0")
    with pytest.raises(InputError, match=r"got 4\.56\.0; pip install 'auvtool\[models\]'"):
        load_medsam2()
    for version in ("4.57.6", "5.0.0", "5.24.0.dev0"):
        monkeypatch.setattr(medsam2_network.metadata, "version", lambda name, version=version: version)
        medsam2_network._require_transformers()
    monkeypatch.setattr(medsam2_network, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"got none; pip install 'auvtool\[models\]'"):
        load_medsam2()


def test_a_torchvision_that_does_not_match_is_said(load_medsam2, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = types.ModuleType("transformers")  # it has none of its names, as beside a torchvision of another torch
    broken.__spec__ = ModuleSpec("transformers", None)
    monkeypatch.setitem(sys.modules, "transformers", broken)
    with pytest.raises(InputError, match="uninstall torchvision") as caught:
        load_medsam2()
    assert "\n" not in str(caught.value)


SETTINGS = ExtractionSettings(extractor="medsam2", input="raw")


def test_options_that_do_not_fit_are_refused(medsam2_weights, tmp_path: Path) -> None:
    dataset = open_dataset(phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1))
    model = ModelOptions(weights=medsam2_weights(PRESENT))
    for settings, message in (
        (SETTINGS, "--weights"),
        (replace(SETTINGS, model=replace(model, window=(0.0, 1.0)), input="mask"), "--window: expected --input raw"),
        (replace(SETTINGS, model=replace(model, propagate=True), prompt="none"), "--propagate"),
        (replace(SETTINGS, model=model, prompt="class-name"), "--prompt"),
        (ExtractionSettings(model=ModelOptions(propagate=True)), "--propagate: expected nothing for litemedsam"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_extraction(dataset, settings, tmp_path / "F.h5")


@pytest.mark.parametrize(("text", "expected"), [("-160,240", (-160, 240)), ("0.5,1e3", (0.5, 1000))])
def test_a_window_is_two_numbers(text: str, expected: tuple[float, float]) -> None:
    assert parse_window(text) == expected


@pytest.mark.parametrize("text", ["", "1", "2,1", "1,1", "a,b", "1,2,3", "nan,1", "0,inf"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--window: expected LO,HI"):
        parse_window(text)


def run(*words: object) -> None:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.exception


HOW = (
    (["--window", "-160,240"], {"window": (-160.0, 240.0)}),
    (["--propagate", "--amp", "bf16"], {"propagate": True, "amp": "bf16"}),
    (["--input", "mask"], {}),
    (["--prompt", "none"], {}),
)


@pytest.mark.parametrize(("how", "recorded"), HOW)
def test_real_cases_from_extract_to_score(
    load_medsam2, medsam2_weights, real_data: Path, tmp_path: Path, how: list[str], recorded: dict[str, object]
) -> None:
    dataset = real_data / "hippocampus" / "Dataset004_Hippocampus"
    features, scores = tmp_path / "F.h5", tmp_path / "S.csv"
    run("extract", dataset, "-o", features, "--cases", "hippocampus_003,hippocampus_004", "--max-slices", 3, *how,
        "--extractor", "medsam2", "--weights", medsam2_weights(PRESENT))  # fmt: skip
    run("score", features, "--quantifier", "auv", "-o", scores)
    assert {row["case"] for row in read_table(scores, SCORES)} == {"hippocampus_003", "hippocampus_004"}
    with FeatureFile(features) as file:
        header, case = file.header, file.case("hippocampus_003")
    assert ModelOptions.of_record(header.options, weights=None).given() == recorded
    assert set(case.status) == {"ok"}
    assert np.isfinite(case.agreement).all() == ("none" not in how)
    assert all(np.isfinite(values).all() for values in case.channel_spectra.values())


def test_a_real_ct_is_seen_in_a_window(load_medsam2, medsam2_weights, real_data: Path, tmp_path: Path) -> None:
    """The same scan under the channel names CT and MRI, and as MRI with the window of CT."""
    source, weights = real_data / "totalseg_examples", medsam2_weights(PRESENT)
    for name in ("CT", "MRI"):
        folder = tmp_path / name
        for place, file in (("imagesTr/aorta_0000", "ct_cropped"), ("labelsTr/aorta", "aorta")):
            (folder / place).parent.mkdir(parents=True)
            shutil.copy(source / f"{file}.nii.gz", folder / f"{place}.nii.gz")
        record = {"channel_names": {"0": name}, "labels": {"background": 0, "aorta": 1}}
        (folder / "dataset.json").write_text(json.dumps(record | {"numTraining": 1, "file_ending": ".nii.gz"}))
    found = {}
    for name, folder, how in (
        ("CT", "CT", ["--window", "-160,240"]),
        ("default", "CT", []),
        ("percentiles", "MRI", []),
        ("window", "MRI", ["--window", "-160,240"]),
    ):
        path = tmp_path / f"{name}.h5"
        run("extract", tmp_path / folder, "-o", path, "--max-slices", 2, *how, "--extractor", "medsam2",
            "--weights", weights)  # fmt: skip
        with FeatureFile(path) as file:
            found[name] = file.case("aorta").class_features
    np.testing.assert_array_equal(found["default"], found["CT"])
    np.testing.assert_array_equal(found["window"], found["CT"])
    assert np.abs(found["percentiles"] - found["CT"]).max() > 0.01
