"""Fixtures that several test modules share."""

import functools
import os
from pathlib import Path

# Before torch or numpy load: several test processes with several threads each would only spin against each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # after the lines above


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; without it the test is skipped."""
    folder = os.environ.get("AUVTOOL_TEST_DATA")
    if not folder:
        pytest.skip("AUVTOOL_TEST_DATA is not set to a folder of real scans")
    return Path(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A short training with all that it wrote (`training_phantoms.Trained`); a quarter of a minute."""
    from training_phantoms import train_on_balls

    return train_on_balls(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def clean_dataset(tmp_path_factory):
    """A data set in which `auvtool check` finds nothing (`check_phantoms`); tests that change it take a copy."""
    from check_phantoms import write_clean_dataset

    return write_clean_dataset(tmp_path_factory.mktemp("clean") / "Dataset001_Clean")


@pytest.fixture(scope="session")
def sam2():
    """The authors' network of MedSAM2, small (`sam2_reference`)."""
    import sam2_reference
    import torch

    torch.set_num_threads(1)
    return sam2_reference.build_reference(sam2_reference.SIZE)


@pytest.fixture(scope="session")
def medsam2_weights(sam2, tmp_path_factory):
    """Object score -> a checkpoint as the authors' trainer writes it, of random weights."""
    import sam2_reference
    import torch

    folder = tmp_path_factory.mktemp("weights")

    @functools.cache
    def write(object_score: float) -> Path:
        path = folder / f"{object_score}.pt"
        state = sam2_reference.random_state(sam2, object_score=object_score)
        torch.save({"model": state, "epoch": 3, "loss": {"core": 0.5}, "steps": {"train": 7}}, path)
        return path

    return write


@pytest.fixture
def load_medsam2(medsam2_weights, sam2, monkeypatch):
    """Loads the extractor, and the authors' network with the same weights."""
    import sam2_reference
    import torch

    from auvtool.extractors import load_extractor, medsam2
    from auvtool.extractors.model_options import ModelOptions

    monkeypatch.setattr(medsam2, "IMAGE_SIZE", sam2_reference.SIZE)

    def load(object_score: float = sam2_reference.PRESENT, **options: object) -> medsam2.MedSam2:
        path = medsam2_weights(object_score)
        sam2.load_state_dict(torch.load(path, weights_only=True)["model"])
        extractor = load_extractor("medsam2", ModelOptions(weights=path, **options), device="cpu")
        assert isinstance(extractor, medsam2.MedSam2)
        return extractor

    return load
