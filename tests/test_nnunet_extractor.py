"""A trained nnU-Net as extractor; the oracles are nnU-Net's predictor and a plain loop over windows in float64."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch
from model_inputs import model_input
from nnunet_runs import architecture, extractor_of, facts, plans_of, write_run
from training_phantoms import ball
from typer.testing import CliRunner

from auvtool.case_extraction import ExtractionSettings
from auvtool.cli.app import app
from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass
from auvtool.errors import CasesFailed, UsageError
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors.facts import facts_with
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.weights import find_weights
from auvtool.feature_store import FeatureFile
from auvtool.nnunet_run import load_network
from auvtool.prediction import nnunet_process

ORGAN, LESION = SemanticClass(1, "organ", (1,)), SemanticClass(2, "lesion", (2,))
NOWHERE = SemanticClass(3, "nowhere", (3,))
U_MAMBA_KEYS = ("dropout_op", "dropout_op_kwargs")


def network_of(run: Path):
    """The network as nnU-Net would use it."""
    with nnunet_process():
        return load_network(run, [run / "fold_0/checkpoint_final.pth"])


def umamba():
    plain = architecture()
    kept = {key: value for key, value in plain["arch_kwargs"].items() if key not in U_MAMBA_KEYS}
    return {
        "network_class_name": "auvtool.backbones.umamba.UMambaBot",
        "arch_kwargs": kept,
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }


def swin_unetr():
    return {
        "network_class_name": "auvtool.backbones.swin_unetr.SwinUNETRV2",
        "arch_kwargs": {"feature_size": 12, "spatial_dims": 3},
        "_kw_requires_import": [],
    }


NETWORKS = {
    "plain": plans_of,
    "residual": lambda: plans_of(network=architecture("ResidualEncoderUNet")),
    "2D": lambda: plans_of(patch_size=(16, 12), spacing=(1.0, 1.0)),
    "umamba": lambda: plans_of(network=umamba()),
    "swin-unetr": lambda: plans_of(patch_size=(32, 32, 64), network=swin_unetr()),
}


@pytest.fixture(scope="module", params=NETWORKS)
def run(request, tmp_path_factory) -> Path:
    if request.param == "swin-unetr":
        pytest.importorskip("monai")
    return write_run(tmp_path_factory.mktemp("run") / "RUN", NETWORKS[request.param]())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("plain") / "RUN", plans_of())


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)


def by_plain_loop(run: Path, image: np.ndarray, *, gaussian: bool) -> np.ndarray:
    """Logits of nnU-Net's windows, added up in float64; the image is at least as large as a window."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    loaded = network_of(run)
    patch = tuple(loaded.configuration.patch_size)
    weights = np.ones(patch)
    if gaussian:
        weights = compute_gaussian(patch, 1 / 8, 10, torch.float64, torch.device("cpu")).numpy()
    shape = image.shape[1:]
    total, weight = 0.0, np.zeros(shape)
    lead = [range(shape[0])] if len(patch) == 2 else []
    steps = compute_steps_for_sliding_window(shape[len(lead) :], patch, 0.5)
    for start in product(*lead, *steps):
        box = tuple(slice(low, low + side) for low, side in zip(start[len(lead) :], patch, strict=True))
        box = (*start[: len(lead)], *box)
        with torch.inference_mode():
            logits = loaded.network.eval()(torch.from_numpy(image[:, *box])[None])[0].double().numpy()
        if isinstance(total, float):
            total = np.zeros((len(logits), *shape))
        total[:, *box] += logits * weights
        weight[box] += weights
    return total / weight


def by_nnunet(run: Path, image: np.ndarray, *, gaussian: bool) -> np.ndarray:
    """Logits as nnU-Net's own predictor averages them, in float16."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    loaded = network_of(run)
    with nnunet_process():
        predictor = nnUNetPredictor(
            use_gaussian=gaussian, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.manual_initialization(
            loaded.network, loaded.plans, loaded.configuration, [], loaded.dataset_json, "nnUNetTrainer", None
        )
        return predictor.predict_sliding_window_return_logits(torch.from_numpy(image)).float().numpy()


@pytest.mark.parametrize("gaussian", [True, False])
def test_logits_of_stitched_features_are_the_networks_averaged_over_windows(run, gaussian):
    extractor = extractor_of(run)
    image = image_of(*(side + extra for side, extra in zip(extractor.window, (4, 9, 5), strict=True)))
    if not gaussian:
        extractor.importance = None
    features = extractor.features(image)
    found = extractor.logits(features)
    expected = by_plain_loop(run, image, gaussian=gaussian)
    assert len(features) == facts_with("nnunet", ModelOptions(weights=run)).n_features
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.ptp(expected))
    if not gaussian:
        half = by_nnunet(run, image, gaussian=False)
        np.testing.assert_allclose(found, half, atol=4e-3 * np.ptp(expected))


def test_an_image_smaller_than_the_window_is_padded_as_nnunet_pads_it(plain):
    image = image_of(9, 20, 7)
    extractor = extractor_of(plain)
    extractor.importance = None
    found = extractor.logits(extractor.features(image))
    expected = by_nnunet(plain, image, gaussian=False)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=4e-3 * np.ptp(expected))


def test_each_slice_goes_through_a_2d_network_once(tmp_path):
    extractor = extractor_of(write_run(tmp_path / "RUN", NETWORKS["2D"]()))
    seen = []
    extractor.network.register_forward_hook(lambda module, arguments, output: seen.append(len(arguments[0])))
    extractor.features(image_of(5, 16, 12))
    assert sum(seen) == 5


def test_mixed_precision_is_the_networks_only(plain):
    image, extractor = image_of(16, 20, 16), extractor_of(plain)
    exact = extractor.features(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = extractor.features(image)
    assert coarse.dtype == np.float32
    assert 0 < np.abs(coarse - exact).max() < 0.1 * np.ptp(exact)
    assert "amp" in facts(plain).options


# --- classes of a trained network


@pytest.fixture(scope="module")
def decoded(trained):
    """Channels of three classes of one case, the extractor, image and label."""
    image, label = ball(0)
    extractor = extractor_of(
        trained.request.run, class_prompts=(("organ", "organ"), ("lesion", "lesion"), ("nowhere", "organ"))
    )
    return list(extractor.decode(model_input(image, label, (ORGAN, LESION, NOWHERE)))), extractor, label


def test_the_map_of_a_class_is_its_output_and_the_mask_the_largest(decoded):
    (organ, lesion, nowhere), extractor, label = decoded
    image, _ = ball(0)
    case = model_input(image, label, ())
    on_grid, grid = extractor._preprocessing.run(case.channels, case.geometry)
    features = extractor.features(on_grid)
    logits = np.stack([grid.as_slices(one) for one in extractor.logits(features)])
    assert logits.shape == (3, *label.shape)
    for channel, head in ((organ, 1), (lesion, 2)):
        np.testing.assert_array_equal(channel.logits, logits[head])
        np.testing.assert_array_equal(channel.region, label == head)
        assert channel.slices.tolist() == list(range(len(label)))
        mask = logits.argmax(axis=0) == head
        both, total = (mask & (label == head)).sum(), mask.sum() + (label == head).sum()
        assert channel.agreement.dice == pytest.approx(2 * both / total)
        assert channel.agreement.iou == pytest.approx(both / (total - both))
        assert channel.agreement.log_ratio == pytest.approx(np.log((mask.sum() + 1) / ((label == head).sum() + 1)))
        seen = np.stack([grid.as_slices(one) for one in features])[:, label == head].astype(np.float64)
        np.testing.assert_allclose(channel.features.mean(), seen.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(
            channel.features.spectrum("uncentered"), np.linalg.svd(seen, compute_uv=False), rtol=1e-5, atol=1e-4
        )
    assert nowhere.logits is None


def test_without_a_label_every_class_is_decoded_everywhere(decoded, monkeypatch):
    from auvtool.extractors import nnunet

    (organ, lesion, _), extractor, label = decoded
    image, _ = ball(0)
    monkeypatch.setattr(nnunet, "_HELD_BYTES", 1)  # one class a pass
    named = list(extractor.decode(model_input(image, None, (LESION,))))
    both = list(extractor.decode(model_input(image, None, ())))
    assert [len(named), len(both)] == [1, 2]
    for found, expected in ((named[0], lesion), (both[0], organ), (both[1], lesion)):
        np.testing.assert_array_equal(found.logits, expected.logits)
        assert found.region is None
        assert found.features.n_voxels == label.size
        assert np.isnan(found.agreement.dice)


def test_penultimate_channels_are_the_features(trained, decoded):
    _, extractor, _ = decoded
    image, _ = ball(0)
    case = model_input(image, None, ())
    on_grid, grid = extractor._preprocessing.run(case.channels, case.geometry)
    features = extractor.features(on_grid)
    channels = list(extractor_of(trained.request.run, feature="penultimate").decode(case))
    assert len(channels) == len(features) == 8
    for channel, one in zip(channels, features, strict=True):
        np.testing.assert_array_equal(channel.logits, grid.as_slices(one))
        assert channel.region is None
    np.testing.assert_allclose(channels[0].features.mean(), features.mean(axis=(1, 2, 3)), rtol=1e-4, atol=1e-6)


def test_regions_overlap_and_are_where_their_logit_is_positive(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "lesion": [2]}
    run = write_run(tmp_path / "RUN", plans_of(), labels=labels)
    assert facts_with("nnunet", ModelOptions(weights=run)).class_names == ("whole", "lesion")
    image, label = ball(0)
    whole, core = SemanticClass(1, "whole", (1, 2)), SemanticClass(2, "lesion", (2,))
    extractor = extractor_of(run)
    channels = list(extractor.decode(model_input(image, label, (whole, core))))
    case = model_input(image, label, ())
    on_grid, grid = extractor._preprocessing.run(case.channels, case.geometry)
    for head, (channel, one) in enumerate(zip(channels, (whole, core), strict=True)):
        np.testing.assert_array_equal(
            channel.logits, grid.as_slices(extractor.logits(extractor.features(on_grid))[head])
        )
        region, mask = np.isin(label, one.labels), channel.logits > 0
        np.testing.assert_array_equal(channel.region, region)
        assert channel.agreement.dice == pytest.approx(2 * (mask & region).sum() / (mask.sum() + region.sum()))


# --- the command


def invoke(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_extract_and_score(trained, tmp_path):
    dataset, run, output = trained.request.dataset.folder, trained.request.run, tmp_path / "F.h5"
    done = invoke("extract", dataset, "-o", output, "--extractor", "nnunet", "--weights", run)
    assert isinstance(done.exception, CasesFailed)  # of the broken case
    assert done.stdout == ""
    assert "(organ, lesion) through nnunet, input raw, prompt class-name" in done.stderr
    with FeatureFile(output) as file:
        assert file.header.weights_sha256 == find_weights(facts(run), run).sha256
        assert file.header.options["class_prompts"] == [["organ", "organ"], ["lesion", "lesion"]]
        case = file.case("case_00")
    assert case.status == ("ok", "ok")
    assert case.class_features.shape == (2, 8)
    # Without resampling the mask is what nnU-Net predicts, but for the digits of float16.
    images, predicted = trained.request.dataset.folder, tmp_path / "P"
    assert invoke("predict", run, images, "-o", predicted, "--no-mirror", "--cases", "case_00").exit_code == 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(predicted / "case_00.nii.gz"))), ball(0)[1]
    for row, value in enumerate((1, 2)):
        mask, region = (one == value for one in labels)
        expected = 2 * (mask & region).sum() / (mask.sum() + region.sum())
        assert case.agreement[row, 0] == pytest.approx(expected, abs=0.01)
        assert mask.sum() > 50
    done = invoke("score", output, "--quantifier", "auv", "-o", tmp_path / "S.csv")
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "S.csv").read_text().count("case_00") == 3


def test_without_labels_and_with_penultimate_features(trained, tmp_path):
    images, run, output = trained.request.dataset.folder / "imagesTr", trained.request.run, tmp_path / "F.h5"
    words = ("--extractor", "nnunet", "--weights", run, "--cases", "case_00")
    done = invoke("extract", images, "-o", output, *words, "--feature", "penultimate", "--store", "maps")
    assert done.exit_code == 0, done.exception
    with FeatureFile(output) as file:
        assert file.header.options["feature"] == "penultimate"
        assert [name for _, name in file.header.channels] == [f"feature_{number}" for number in range(1, 9)]
    done = invoke("extract", images, "-o", output, *words, "--prompt", "none", "--force")
    assert done.exit_code == 0, done.exception
    with FeatureFile(output) as file:
        assert [name for _, name in file.header.channels] == ["organ", "lesion"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--weights: expected a results folder"),
        (("--weights", "RUN", "--input", "mask"), "--input: expected raw"),
        (("--weights", "RUN", "--feature", "penultimate", "--prompt", "class-name"), "--prompt: expected none"),
        (("--weights", "RUN", "--max-slices", "3"), "--max-slices"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(trained, tmp_path, words, message):
    words = [trained.request.run if word == "RUN" else word for word in words]
    done = invoke("extract", trained.request.dataset.folder, "-o", tmp_path / "F.h5", "--extractor", "nnunet", *words)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_a_real_case_with_random_weights(real_data, tmp_path):
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    run = write_run(tmp_path / "RUN", plans_of(spacing=(1.2, 1.0, 1.0)), labels=labels)
    dataset = open_dataset(real_data / "hippocampus" / "Dataset004_Hippocampus")
    settings = ExtractionSettings(extractor="nnunet", model=ModelOptions(weights=run), prompt="class-name", input="raw")
    run_extraction(
        plan_extraction(dataset, settings, tmp_path / "F.h5", case_ids=["hippocampus_003", "hippocampus_004"])
    )
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.header.channels == ((1, "anterior"), (2, "posterior"))
        cases = [file.case(case_id) for case_id in file.case_ids]
    for case in cases:
        assert case.status == ("ok", "ok")
        assert all(one[0] > 0 for values in case.spectra.values() for one in values)
        assert (case.n_feature_voxels > 100).all()
    done = invoke("score", tmp_path / "F.h5", "--quantifier", "auv", "-o", tmp_path / "S.csv")
    assert done.exit_code == 0, done.exception
