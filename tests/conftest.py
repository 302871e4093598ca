"""Fixtures that several test modules share."""

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
