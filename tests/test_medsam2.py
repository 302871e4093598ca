"""MedSAM2 with random weights under the official names; the oracle is the authors' SAM2 (`sam2_reference`)."""

import functools

import numpy as np
import pytest
import sam2_reference
import torch
from model_inputs import model_input
from PIL import Image
from sam2_reference import ABSENT, MIXED, PRESENT, SIZE

from auvtool.dataset_json import SemanticClass
from auvtool.extractors import medsam2 as module
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.medsam2_keys import transformers_names
from auvtool.extractors.medsam2_network import build_network
from auvtool.extractors.medsam2_tracking import SliceFeatures
from auvtool.extractors.prompted_masks import boxes_on_grid, loosened

GRID = SIZE // 4
BALL, ROD = SemanticClass(1, "ball", (1,)), SemanticClass(2, "rod", (2,))
NOWHERE = SemanticClass(3, "nowhere", (3,))


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


def test_every_official_name_has_its_place(sam2) -> None:
    state = sam2.state_dict()
    assert len(state) == 471
    for tracking in (True, False):
        own = build_network(SIZE, tracking=tracking).state_dict()
        found = transformers_names(state, with_memory=tracking)
        assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in own.items()}


def test_slices_are_encoded_as_the_authors_do(load_medsam2, sam2) -> None:
    image, _ = scene()
    extractor = load_medsam2(window=(50.0, 180.0))
    encoded = extractor.encode(model_input(image, None, ()), np.array([1, 4]))
    with torch.inference_mode():
        expected = sam2.forward_image(reference_images(image, 50, 180)[[1, 4]])
    for found, wanted in zip(encoded.maps, expected["backbone_fpn"], strict=True):
        assert wanted.abs().max() > 3
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
    for found, wanted in zip(encoded.positions, expected["vision_pos_enc"], strict=True):
        np.testing.assert_allclose(found.numpy(), wanted[:1].numpy(), atol=1e-6)


def test_boxes_and_the_empty_prompt_are_decoded_as_the_authors_do(load_medsam2, sam2) -> None:
    extractor = load_medsam2(ABSENT)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[20.0, 30, 70, 80], [10, 5, 100, 60], [40, 40, 41, 41]])
    given = boxes.clone()
    with torch.inference_mode():
        maps = sam2.forward_image(images)["backbone_fpn"]
    for prompt in (boxes, None):
        logits, upscaled, predicted_iou = extractor.decode_prompts(maps, prompt)
        for index, expected in enumerate(sam2_reference.decode(sam2, images, prompt)):
            assert np.ptp(expected.logits) > 5
            np.testing.assert_allclose(logits[index], expected.logits, atol=1e-4)
            np.testing.assert_allclose(upscaled[index], expected.upscaled, atol=1e-4)
            assert float(predicted_iou[index]) == pytest.approx(expected.predicted_iou, abs=1e-5)
            assert expected.object_score < 0  # the image path draws what it sees all the same
    assert np.ptp(upscaled.numpy()) > 1
    assert torch.equal(boxes, given)


@pytest.mark.parametrize("options", [{}, {"propagate": True}])
def test_bfloat16_is_coarser_and_its_masks_are_the_same(load_medsam2, options: dict[str, bool]) -> None:
    image, label = scene()
    extractor = load_medsam2(window=(50.0, 180.0), **options)
    case = model_input(image, label, (BALL,), np.array([1, 2]))
    (exact,) = extractor.decode(case)
    extractor._encoded.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (coarse,) = extractor.decode(case)
    assert coarse.logits.dtype == np.float32
    assert 1e-4 < np.abs(coarse.logits - exact.logits).max() < 0.2 * np.ptp(exact.logits)
    assert dice(coarse.logits > 0, exact.logits > 0) > 0.9


@pytest.mark.parametrize("object_score", [ABSENT, MIXED, PRESENT])
def test_a_volume_is_followed_as_the_authors_do(load_medsam2, sam2, object_score: float) -> None:
    """20 slices from the third one: more to one side than the memory reaches back."""
    extractor = load_medsam2(object_score, propagate=True)
    video = torch.randn(20, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    box = np.array([20, 30, 70, 80], dtype=np.float32)
    expected = sam2_reference.track(sam2, video, 2, box)

    def features(number: int) -> SliceFeatures:
        with torch.inference_mode():
            seen = sam2.forward_image(video[number : number + 1])
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


def test_no_more_than_the_memory_reaches_back_is_kept(load_medsam2, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = load_medsam2(propagate=True)
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


def test_classes_through_the_public_interface(load_medsam2, sam2) -> None:
    image, label = scene()
    n_encoded: list[int] = []
    extractor = load_medsam2(window=(50.0, 180.0))
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
            found = sam2_reference.decode(sam2, images[channel.slices], torch.from_numpy(prompt))
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
        coarse = sam2.forward_image(images[1:5])["backbone_fpn"][2].double().numpy()
    expected = np.concatenate([coarse.mean(axis=(0, 2, 3)), coarse.std(axis=(0, 2, 3))])
    np.testing.assert_allclose(ball.image_features, expected, atol=1e-4)
    np.testing.assert_array_equal(rod.image_features, ball.image_features)


@pytest.mark.parametrize("options", [{}, {"propagate": True}])
def test_a_copy_with_another_label_is_not_encoded_again(load_medsam2, options: dict[str, bool]) -> None:
    image, label = scene()
    n_encoded: list[int] = []
    extractor = load_medsam2(window=(50.0, 180.0), **options)
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


def test_a_followed_class_keeps_the_rows_that_carry_it(load_medsam2, sam2) -> None:
    """Slice 3, which does not carry the ball, lies on its way and is no row of it; slices 0 and 5 are not looked at."""
    image, label = scene()
    n_encoded: list[int] = []
    extractor = load_medsam2(MIXED, window=(50.0, 180.0), propagate=True)
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
        found = sam2_reference.track(sam2, video, key, box[0])
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


def test_without_prompts_the_channels_are_the_decoders(load_medsam2, sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = scene()
    extractor = load_medsam2(window=(50.0, 180.0))
    case = model_input(image, None, (), np.array([1, 3]))
    expected = sam2_reference.decode(sam2, reference_images(image, 50, 180)[[1, 3]], None)
    channels = list(extractor.decode(case))
    assert len(channels) == len(EXTRACTORS["medsam2"].channels_without_prompt) == 32
    for index, channel in enumerate(channels):
        np.testing.assert_allclose(channel.logits, np.stack([one.upscaled[index] for one in expected]), atol=1e-4)
        assert channel.region is None
    assert channels[0].features.n_voxels == 2 * GRID * GRID
    monkeypatch.setattr(module, "_CHANNEL_MAP_BYTES", 5 * 4 * 2 * GRID * GRID)
    for one, other in zip(channels, extractor.decode(case), strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
