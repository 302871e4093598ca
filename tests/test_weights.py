"""Where an extractor's weights come from: a path (`test_litemedsam`: a package, `test_nnunet_weights`: a folder)."""

import os
from pathlib import Path

import pytest

from auvtool.errors import InputError
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.weights import find_weights


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(InputError, match="expected a weights file, got a pipe or a device; write it to a file"):
        find_weights(EXTRACTORS["anatomix"], tmp_path / "w.pth")


def test_a_folder_and_nothing_are_no_weights(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(InputError, match=r"expected a weights file, got '(Is a directory|No such file)"):
            find_weights(EXTRACTORS["anatomix"], path)
