"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; without it the test is skipped."""
    folder = os.environ.get("AUVTOOL_TEST_DATA")
    if not folder:
        pytest.skip("AUVTOOL_TEST_DATA is not set to a folder of real scans")
    return Path(folder)
