"""MedSAM2 with random weights under the official names; the oracle is the authors' SAM2 (`sam2_reference`).

The network stands at 128 x 128 here: no weight depends on that, and 512 x 512 would take minutes.
"""

import functools
import json
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import phantoms
import pytest
import sam2_reference
import torch
from model_inputs import model_input
from PIL import Image
from typer.testing import CliRunner

from auvtool.case_extraction import ExtractionSettings
from auvtool.cli.app import app
from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors import load_extractor, medsam2_network
from auvtool.extractors import medsam2 as module
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.medsam2 import MedSam2
from auvtool.extractors.medsam2_keys import transformers_names
from auvtool.extractors.medsam2_network import build_network
from auvtool.extractors.medsam2_tracking import SliceFeatures
from auvtool.extractors.model_options import ModelOptions, parse_window
from auvtool.extractors.prompted_masks import boxes_on_grid, loosened, region_on_grid
from auvtool.feature_store import FeatureFile
from auvtool.schema import SCORES
from auvtool.tables import read_table

SIZE, GRID = 128, 32
ABSENT, MIXED, PRESENT = 0.0, 1.05, 3.0  # what the random network thinks of an object on most slices
BALL, ROD = SemanticClass(1, "ball", (1,)), SemanticClass(2, "rod", (2,))
NOWHERE = SemanticClass(3, "nowhere", (3,))


@pytest.fixture(scope="session")
def reference() -> torch.nn.Module:
    torch.set_num_threads(1)
    return sam2_reference.build_reference(SIZE)


@pytest.fixture(scope="session")
def checkpoint(reference, tmp_path_factory) -> Callable[[float], Path]:
    """A checkpoint as the authors' trainer writes it, of random weights."""
    folder = tmp_path_factory.mktemp("weights")

    @functools.cache
    def write(object_score: float) -> Path:
        path = folder / f"{object_score}.pt"
        state = sam2_reference.random_state(reference, object_score=object_score)
        torch.save({"model": state, "epoch": 3, "loss": {"core": 0.5}, "steps": {"train": 7}}, path)
        return path

    return write


@pytest.fixture
def loaded(checkpoint, reference, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MedSam2]:
    """The extractor, with the reference on the same weights."""
    monkeypatch.setattr(module, "IMAGE_SIZE", SIZE)

    def load(object_score: float = PRESENT, **options: object) -> MedSam2:
        path = checkpoint(object_score)
        reference.load_state_dict(torch.load(path, weights_only=True)["model"])
        extractor = load_extractor("medsam2", ModelOptions(weights=path, **options), device="cpu")
        assert isinstance(extractor, MedSam2)
        return extractor

    return load


@functools.cache
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A bright ball (1) on slices 1, 2 and 4 of 48 x 64, a brighter rod (2) on slices 3 and 4, and the label."""
    d, h, w = np.mgrid[:6, :48, :64]
    label = np.zeros((6, 48, 64), dtype=np.int16)
    radius = np.array([0, 9, 11, 0, 10, 0])[d]
    label[(radius > 0) & ((h - 22) ** 2 + (w - 20) ** 2 <= radius**2)] = 1
    label[3:5, 14:34, 44:54] = 2
    noise = np.random.default_rng(0).normal(scale=4, size=label.shape)
    return (60.0 + 60 * (label == 1) + 110 * (label == 2) + noise).astype(np.float32), label


def reference_images(image: np.ndarray, low: float, high: float) -> torch.Tensor:
    """Slices by the authors' recipe, through colours."""
    cut = np.clip(image, low, high)
    grey = np.uint8((cut - cut.min()) / (cut.max() - cut.min()) * 255.0)
    colours = [np.array(Image.fromarray(one).convert("RGB").resize((SIZE, SIZE))) for one in grey]
    scaled = np.stack(colours).transpose(0, 3, 1, 2) / 255.0
    mean, deviation = (np.array(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return torch.from_numpy(((scaled - mean) / deviation).astype(np.float32))


def test_every_official_name_has_its_place(reference) -> None:
    state = reference.state_dict()
    assert len(state) == 471
    for tracking in (True, False):
        own = build_network(SIZE, tracking=tracking).state_dict()
        found = transformers_names(state, with_memory=tracking)
        assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in own.items()}


def test_slices_are_encoded_as_the_authors_do(loaded, reference) -> None:
    image, _ = scene()
    extractor = loaded(window=(50.0, 180.0))
    encoded = extractor.encode(model_input(image, None, ()), np.array([1, 4]))
    with torch.inference_mode():
        expected = reference.forward_image(reference_images(image, 50, 180)[[1, 4]])
    for found, wanted in zip(encoded.maps, expected["backbone_fpn"], strict=True):
        assert wanted.abs().max() > 3
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
    for found, wanted in zip(encoded.positions, expected["vision_pos_enc"], strict=True):
        np.testing.assert_allclose(found.numpy(), wanted[:1].numpy(), atol=1e-6)


def test_boxes_and_the_empty_prompt_are_decoded_as_the_authors_do(loaded, reference) -> None:
    extractor = loaded(ABSENT)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[20.0, 30, 70, 80], [10, 5, 100, 60], [40, 40, 41, 41]])
    given = boxes.clone()
    with torch.inference_mode():
        maps = reference.forward_image(images)["backbone_fpn"]
    for prompt in (boxes, None):
        logits, upscaled, predicted_iou = extractor.decode_prompts(maps, prompt)
        for index, expected in enumerate(sam2_reference.decode(reference, images, prompt)):
            assert np.ptp(expected.logits) > 5
            np.testing.assert_allclose(logits[index], expected.logits, atol=1e-4)
            np.testing.assert_allclose(upscaled[index], expected.upscaled, atol=1e-4)
            assert float(predicted_iou[index]) == pytest.approx(expected.predicted_iou, abs=1e-5)
            assert expected.object_score < 0  # the image path draws what it sees all the same
    assert np.ptp(upscaled.numpy()) > 1
    assert torch.equal(boxes, given)


@pytest.mark.parametrize("options", [{}, {"propagate": True}])
def test_bfloat16_is_coarser_and_its_masks_are_the_same(loaded, options: dict[str, bool]) -> None:
    image, label = scene()
    extractor = loaded(window=(50.0, 180.0), **options)
    case = model_input(image, label, (BALL,), np.array([1, 2]))
    (exact,) = extractor.decode(case)
    extractor._encoded.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (coarse,) = extractor.decode(case)
    assert coarse.logits.dtype == np.float32
    assert 1e-4 < np.abs(coarse.logits - exact.logits).max() < 0.2 * np.ptp(exact.logits)
    assert dice(coarse.logits > 0, exact.logits > 0) > 0.9


@pytest.mark.parametrize("object_score", [ABSENT, MIXED, PRESENT])
def test_a_volume_is_followed_as_the_authors_do(loaded, reference, object_score: float) -> None:
    """20 slices from the third one: more to one side than the memory reaches back."""
    extractor = loaded(object_score, propagate=True)
    video = torch.randn(20, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    box = np.array([20, 30, 70, 80], dtype=np.float32)
    expected = sam2_reference.track(reference, video, 2, box)

    def features(number: int) -> SliceFeatures:
        with torch.inference_mode():
            seen = reference.forward_image(video[number : number + 1])
        return SliceFeatures(tuple(seen["backbone_fpn"]), tuple(seen["vision_pos_enc"]))

    order = []
    for found in extractor._tracker.follow(features, key=2, box=torch.from_numpy(box), ends=(0, 19), n_slices=20):
        wanted = expected[found.number]
        np.testing.assert_allclose(found.logits[0], wanted.logits, atol=5e-4)
        np.testing.assert_allclose(found.upscaled[0], wanted.upscaled, atol=5e-4)
        assert float(found.predicted_iou) == pytest.approx(wanted.predicted_iou, abs=1e-4)
        order.append(found.number)
    assert order == [*range(2, 20), 1, 0]
    unseen = [one for one in expected.values() if one.object_score <= 0]
    for one in unseen:  # what the predictor publishes there is a constant: not that is taken
        assert np.unique(one.published).tolist() == [-1024]
        assert np.ptp(one.logits) > 5
    assert {ABSENT: len(unseen) == 20, MIXED: 3 < len(unseen) < 17, PRESENT: not unseen}[object_score]


def test_no_more_than_the_memory_reaches_back_is_kept(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = loaded(propagate=True)
    sessions = []
    made = extractor._tracker._session
    monkeypatch.setattr(extractor._tracker, "_session", lambda n: sessions.append(made(n)) or sessions[-1])
    encoded = extractor.encode(model_input(scene()[0], None, ()), np.array([0]))

    def features(number: int) -> SliceFeatures:
        return SliceFeatures(tuple(encoded.of(np.array([0]), torch.device("cpu"))), encoded.positions)

    box = torch.tensor([20.0, 30, 70, 80])
    for _ in extractor._tracker.follow(features, key=0, box=box, ends=(0, 24), n_slices=25):
        (outputs,) = sessions[0].output_dict_per_obj.values()
        assert len(outputs["non_cond_frame_outputs"]) <= 16
        held = [*outputs["cond_frame_outputs"].values(), *outputs["non_cond_frame_outputs"].values()]
        assert sum("high_res_masks" in one for one in held) <= 1  # of the slice just drawn


def test_classes_through_the_public_interface(loaded, reference) -> None:
    image, label = scene()
    n_encoded: list[int] = []
    extractor = loaded(window=(50.0, 180.0))
    extractor.network.vision_encoder.register_forward_hook(lambda m, args, out: n_encoded.append(len(args[0])))
    case = model_input(image, label, (BALL, ROD, NOWHERE), np.arange(1, 5))
    ball, rod, nowhere = extractor.decode(case)
    assert sum(n_encoded) == 4  # each slice once, whatever the number of classes
    assert nowhere.logits is None
    assert (ball.slices.tolist(), rod.slices.tolist()) == ([1, 2, 4], [3, 4])
    images = reference_images(image, 50, 180)
    for channel, value in ((ball, 1), (rod, 2)):
        mask = label[channel.slices] == value
        boxes = boxes_on_grid(mask, np.array([SIZE / 64, SIZE / 48]))
        masks = []
        for prompt in (boxes, loosened(boxes, SIZE, SIZE)):
            found = sam2_reference.decode(reference, images[channel.slices], torch.from_numpy(prompt))
            logits = torch.from_numpy(np.stack([one.logits for one in found]))
            resized = torch.nn.functional.interpolate(logits[:, None], size=(48, 64), mode="bilinear")[:, 0]
            masks.append((found, (resized > 0).numpy()))
        (drawn, tight), (_, loose) = masks
        assert channel.logits.shape == channel.region.shape == (len(mask), GRID, GRID)
        np.testing.assert_allclose(channel.logits, np.stack([one.logits for one in drawn]), atol=2e-4)
        agreement = channel.agreement
        assert agreement.dice == pytest.approx(dice(tight, mask), abs=0.01)
        assert agreement.loose_dice == pytest.approx(dice(loose, mask), abs=0.01)
        assert agreement.stability == pytest.approx(dice(loose, tight), abs=0.01)
        assert agreement.iou == pytest.approx(agreement.dice / (2 - agreement.dice))
        assert agreement.log_ratio == pytest.approx(np.log((tight.sum() + 1) / (mask.sum() + 1)), abs=0.02)
        assert agreement.loose_log_ratio == pytest.approx(np.log((loose.sum() + 1) / (mask.sum() + 1)), abs=0.02)
        assert agreement.predicted_iou == pytest.approx(np.mean([one.predicted_iou for one in drawn]), abs=1e-5)
        inside = np.concatenate([one.upscaled[:, channel.region[i]] for i, one in enumerate(drawn)], axis=1)
        np.testing.assert_allclose(channel.features.mean(), inside.mean(axis=1), atol=1e-4)
    with torch.inference_mode():
        coarse = reference.forward_image(images[1:5])["backbone_fpn"][2].double().numpy()
    expected = np.concatenate([coarse.mean(axis=(0, 2, 3)), coarse.std(axis=(0, 2, 3))])
    np.testing.assert_allclose(ball.image_features, expected, atol=1e-4)
    np.testing.assert_array_equal(rod.image_features, ball.image_features)


@pytest.mark.parametrize("options", [{}, {"propagate": True}])
def test_a_copy_with_another_label_is_not_encoded_again(loaded, monkeypatch, options: dict[str, bool]) -> None:
    image, label = scene()
    n_encoded: list[int] = []
    extractor = loaded(window=(50.0, 180.0), **options)
    extractor.network.vision_encoder.register_forward_hook(lambda m, args, out: n_encoded.append(len(args[0])))
    shifted = model_input(image, np.roll(label, 3, axis=2), (BALL, ROD))
    alone = list(extractor.decode(shifted))
    extractor._encoded.clear()
    list(extractor.decode(model_input(image, label, (BALL, ROD))))
    del n_encoded[:]
    for one, other in zip(extractor.decode(shifted), alone, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.features.mean(), other.features.mean())
        np.testing.assert_array_equal(one.image_features, other.image_features)
        assert one.agreement == other.agreement
    assert n_encoded == []
    (brighter, _) = extractor.decode(model_input(image + 9, label, (BALL, ROD)))
    assert sum(n_encoded) == 4
    assert not np.array_equal(brighter.image_features, alone[0].image_features)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_a_followed_class_keeps_the_rows_that_carry_it(loaded, reference) -> None:
    """Slice 3, which does not carry the ball, lies on its way and is no row of it; slices 0 and 5 are not looked at."""
    image, label = scene()
    n_encoded: list[int] = []
    extractor = loaded(MIXED, window=(50.0, 180.0), propagate=True)
    extractor.network.vision_encoder.register_forward_hook(lambda m, args, out: n_encoded.append(len(args[0])))
    ball, nowhere = extractor.decode(model_input(image, label, (BALL, NOWHERE)))
    assert sum(n_encoded) == 4
    assert nowhere.logits is None
    assert ball.slices.tolist() == [1, 2, 4]
    assert ball.logits.shape == ball.region.shape == (3, GRID, GRID)
    key = 2  # where the ball is largest
    mask = label[[1, 2, 4]] == 1
    tight = boxes_on_grid(mask[1:2], np.array([SIZE / 64, SIZE / 48]))
    video = reference_images(image, 50, 180)
    masks = []
    for box in (tight, loosened(tight, SIZE, SIZE)):
        found = sam2_reference.track(reference, video, key, box[0])
        logits = torch.from_numpy(np.stack([found[number].logits for number in (1, 2, 4)]))
        resized = torch.nn.functional.interpolate(logits[:, None], size=(48, 64), mode="bilinear")[:, 0]
        masks.append((found, logits.numpy(), (resized > 0).numpy()))
    (drawn, logits, predicted), (_, _, around) = masks
    np.testing.assert_allclose(ball.logits, logits, atol=5e-4)
    assert ball.agreement.dice == pytest.approx(dice(predicted, mask), abs=0.01)
    assert ball.agreement.stability == pytest.approx(dice(around, predicted), abs=0.01)
    ious = [drawn[number].predicted_iou for number in (1, 2, 4)]
    assert ball.agreement.predicted_iou == pytest.approx(np.mean(ious), abs=1e-4)
    assert ball.features.n_voxels == ball.region.sum()


def test_without_prompts_the_channels_are_the_decoders(loaded, reference, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = scene()
    extractor = loaded(window=(50.0, 180.0))
    case = model_input(image, None, (), np.array([1, 3]))
    expected = sam2_reference.decode(reference, reference_images(image, 50, 180)[[1, 3]], None)
    channels = list(extractor.decode(case))
    assert len(channels) == len(EXTRACTORS["medsam2"].channels_without_prompt) == 32
    for index, channel in enumerate(channels):
        np.testing.assert_allclose(channel.logits, np.stack([one.upscaled[index] for one in expected]), atol=1e-4)
        assert channel.region is None
    assert channels[0].features.n_voxels == 2 * GRID * GRID
    monkeypatch.setattr(module, "_CHANNEL_MAP_BYTES", 5 * 4 * 2 * GRID * GRID)
    for one, other in zip(channels, extractor.decode(case), strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def test_boxes_and_regions_lie_on_a_square_whatever_the_slice() -> None:
    mask = np.zeros((1, 48, 64), dtype=bool)
    mask[0, 12:24, 16:48] = True
    # 128 / 64 pixels across and 128 / 48 down; the last pixel's centre is one before the edge.
    np.testing.assert_allclose(boxes_on_grid(mask, np.array([2, 128 / 48])), [[32, 32, 95, 63]], rtol=1e-6)
    region = region_on_grid(mask, (32, 32))
    assert region[0, 8:16, 8:24].all()
    assert region.sum() == 8 * 16


class RunsCode:
    def __reduce__(self):
        return print, ("this must not run",)


def test_strange_weights_are_refused_in_one_line(loaded, checkpoint, tmp_path: Path, capsys) -> None:
    weights = torch.load(checkpoint(PRESENT), weights_only=True)["model"]
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


def test_without_the_package_or_with_an_old_one_the_cure_is_a_command(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medsam2_network.metadata, "version", lambda name: "4.56.0")
    with pytest.raises(InputError, match=r"got 4\.56\.0; pip install 'auvtool\[models\]'"):
        loaded()
    for version in ("4.57.6", "5.0.0", "5.24.0.dev0"):
        monkeypatch.setattr(medsam2_network.metadata, "version", lambda name, version=version: version)
        medsam2_network._require_transformers()
    monkeypatch.setattr(medsam2_network, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"got none; pip install 'auvtool\[models\]'"):
        loaded()


def test_a_torchvision_that_does_not_match_is_said(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = types.ModuleType("transformers")  # it has none of its names, as beside a torchvision of another torch
    broken.__spec__ = ModuleSpec("transformers", None)
    monkeypatch.setitem(sys.modules, "transformers", broken)
    with pytest.raises(InputError, match="uninstall torchvision") as caught:
        loaded()
    assert "\n" not in str(caught.value)


SETTINGS = ExtractionSettings(extractor="medsam2", input="raw")


def test_options_that_do_not_fit_are_refused(checkpoint, tmp_path: Path) -> None:
    dataset = open_dataset(phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1))
    model = ModelOptions(weights=checkpoint(PRESENT))
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
    loaded, checkpoint, real_data: Path, tmp_path: Path, how: list[str], recorded: dict[str, object]
) -> None:
    dataset = real_data / "hippocampus" / "Dataset004_Hippocampus"
    features, scores = tmp_path / "F.h5", tmp_path / "S.csv"
    run("extract", dataset, "-o", features, "--cases", "hippocampus_003,hippocampus_004", "--max-slices", 3, *how,
        "--extractor", "medsam2", "--weights", checkpoint(PRESENT))  # fmt: skip
    run("score", features, "--quantifier", "auv", "-o", scores)
    assert {row["case"] for row in read_table(scores, SCORES)} == {"hippocampus_003", "hippocampus_004"}
    with FeatureFile(features) as file:
        header, case = file.header, file.case("hippocampus_003")
    assert ModelOptions.of_record(header.options, weights=None).given() == recorded
    assert set(case.status) == {"ok"}
    assert np.isfinite(case.agreement).all() == ("none" not in how)
    assert all(np.isfinite(values).all() for values in case.channel_spectra.values())


def test_a_real_ct_is_seen_in_a_window(loaded, checkpoint, real_data: Path, tmp_path: Path) -> None:
    """The same scan under the channel names CT and MRI, and as MRI with the window of CT."""
    source, weights = real_data / "totalseg_examples", checkpoint(PRESENT)
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
