"""Scales of real scans against both oracles: the equations through an SVD, and the released arithmetic."""

import numpy as np
import oracles
import pytest

from auvtool.dataset import open_dataset
from auvtool.gram import map_spectra
from auvtool.scale import semantic_perception_scale
from auvtool.spectrum import UNFOLDINGS
from auvtool.volume import read_case

N_CASES = 20


@pytest.fixture(scope="module")
def images(real_data):
    """Images (d, h, w) of real cases, as they are and standardised: intensities in the place of a decoded map."""
    folder = real_data / "hippocampus" / "Dataset004_Hippocampus"
    if not folder.is_dir():
        pytest.skip("no hippocampus data set among the real scans")
    dataset = open_dataset(folder)
    raw = [read_case(case, dataset).image[0] for case in dataset.cases[:N_CASES]]
    return [*raw, *((image - image.mean()) / image.std() for image in raw)]


def test_the_equations_as_written(images):
    errors = [
        abs(float(semantic_perception_scale(map_spectra(image)["d_hw", "uncentered"])) - oracles.written_scale(image))
        for image in images
    ]
    print(f"worst difference from a float64 SVD over {len(images)} images: {max(errors):.1e}")
    assert max(errors) < 1e-12


def test_the_released_arithmetic(images):
    errors = []
    for image in images:
        spectra = map_spectra(image.astype(np.float32))
        for unfolding in UNFOLDINGS:
            ours = semantic_perception_scale(spectra[unfolding, "uncentered"], energy="linear", eps_rule="added")
            errors.append(abs(float(ours) - oracles.released_scale(image, unfolding)))
    print(f"worst difference from the released arithmetic over {len(errors)} maps: {max(errors):.1e}")
    assert max(errors) < 1e-6
