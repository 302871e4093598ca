"""anatomix: figures of the authors' own network; windows by MONAI's sliding window, which they use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import auvtool
from model_inputs import model_input
from model_weights import random_volume, random_weights

from auvtool.case_extraction import ExtractionSettings
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors import anatomix as module
from auvtool.extractors import load_extractor
from auvtool.extractors.anatomix import Anatomix, scaled
from auvtool.extractors.model_options import ModelOptions
from auvtool.feature_store import FeatureFile

# Places of the convolutions in the authors' network and their channels; all but the last have a batch norm after them.
CONVOLUTIONS = {
    0: (1, 16),
    3: (16, 16),
    6: (16, 16),
    10: (16, 32),
    13: (32, 32),
    17: (32, 64),
    20: (64, 64),
    24: (64, 128),
    27: (128, 128),
    31: (128, 256),
    34: (256, 256),
    38: (384, 128),
    41: (128, 128),
    45: (192, 64),
    48: (64, 64),
    52: (96, 32),
    55: (32, 32),
    59: (48, 16),
    62: (16, 16),
    65: (16, 16),
}


def official_weights() -> dict[str, torch.Tensor]:
    shapes = {}
    for place, (n_in, n_out) in CONVOLUTIONS.items():
        shapes[f"model.{place}.weight"] = (n_out, n_in, 3, 3, 3)
        if place != 65:
            norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (n_out,))
            norm["num_batches_tracked"] = ()
            shapes |= {f"model.{place + 1}.{name}": shape for name, shape in norm.items()}
    return random_weights(shapes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("anatomix") / "anatomix.pth"
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in official_weights().items()}, path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Anatomix:
    return load_extractor("anatomix", ModelOptions(weights=weights), device="cpu")


def test_the_network_is_that_of_the_authors(extractor) -> None:
    with torch.inference_mode():
        maps, bottleneck = extractor.network(random_volume(48, 64, 32))
    assert maps.shape == (1, 16, 48, 64, 32)
    assert bottleneck.shape == (1, 256, 3, 4, 2)
    values = maps.double()
    found = [float(one) for one in (values.mean(), values.std(), values.abs().max(), values.flatten()[12345])]
    # What anatomix.model.network.Unet(3, 1, 16, 4, ngf=16) (neel-dey/anatomix a29b8a8) gives for these weights.
    assert found == pytest.approx([0.090607, 1.788724, 5.69867, 1.013485], abs=1e-4)


def test_a_volume_is_extracted_as_the_authors_do_it(extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.inferers import sliding_window_inference

    monkeypatch.setattr(module, "_WINDOW", (32, 32, 32))
    monkeypatch.setattr(module, "_OVERLAP", 0.8)
    image = np.random.default_rng(0).normal(size=(20, 40, 33)).astype(np.float32)
    channels = list(extractor.decode(model_input(image, None, ())))
    unit = torch.from_numpy((image - image.min()) / np.ptp(image))[None, None]
    with torch.inference_mode():
        expected = sliding_window_inference(
            unit, (32, 32, 32), 1, lambda x: extractor.network(x)[0], overlap=0.8, mode="gaussian", sigma_scale=0.25
        )
    assert len(channels) == 16
    for channel, one in zip(channels, expected[0].numpy(), strict=True):
        np.testing.assert_allclose(channel.logits, one, atol=1e-5)
        assert channel.region is None
        assert channel.slices.tolist() == list(range(20))
    flat = expected[0].double().numpy().reshape(16, -1)
    np.testing.assert_allclose(channels[3].features.mean(), flat.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(
        channels[3].features.spectrum("uncentered"), np.linalg.svd(flat, compute_uv=False), rtol=1e-4
    )
    assert channels[0].image_features.shape == (512,)
    assert (channels[0].image_features[256:] >= 0).all()


def test_mixed_precision_is_coarser_and_no_more(extractor) -> None:
    volume = random_volume(32, 32, 32)
    with torch.inference_mode():
        exact, _ = extractor.network(volume)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse, _ = extractor.network(volume)
    for one, other in zip(coarse[0].float(), exact[0], strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.97


def test_intensities_are_scaled_by_their_extremes() -> None:
    image = np.array([-2000.0, -450, 0, 450, 3000], dtype=np.float32).reshape(5, 1, 1)
    np.testing.assert_allclose(scaled(image, None).ravel(), [0, 0.31, 0.4, 0.49, 1])
    np.testing.assert_allclose(scaled(image, (-450, 450)).ravel(), [0, 0, 0.5, 1, 1])
    assert (scaled(np.full((2, 2, 2), 7.0, dtype=np.float32), None) == 0).all()
    assert scaled(image, None).dtype == np.float32


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = official_weights()
    state["model.65.weight"] = torch.zeros(32, 16, 3, 3, 3)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"16 features, not anatomix-dev.*of another shape, such as model\.65\.weight"):
        load_extractor("anatomix", ModelOptions(weights=tmp_path / "other.pth"), device="cpu")
    with pytest.raises(UsageError, match=r"--weights: expected a checkpoint, got none; get one \(anatomix\.pth"):
        load_extractor("anatomix", ModelOptions(), device="cpu")


def test_a_real_case_end_to_end(real_data: Path, tmp_path: Path, weights: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", (32, 32, 32))
    dataset = open_dataset(real_data / "hippocampus" / "Dataset004_Hippocampus")
    settings = ExtractionSettings(
        extractor="anatomix", prompt="none", input="raw", model=ModelOptions(weights=weights, window=(0, 300))
    )
    features = tmp_path / "F.h5"
    cases = [case.case_id for case in dataset.cases[:3]]
    run_extraction(plan_extraction(dataset, settings, features, case_ids=cases))
    with FeatureFile(features) as file:
        assert file.header.options["window"] == [0, 300]
        case = file.case(cases[0])
    assert case.status == ("ok",) * 16
    assert np.isfinite(case.class_features).all()
    scores = auvtool("score", features, "--preset", "official", "-o", tmp_path / "S.csv")
    assert scores.returncode == 0, scores.stderr
    assert len((tmp_path / "S.csv").read_text().splitlines()) > 3 * 16
