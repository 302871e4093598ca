"""Checkpoints of nnU-Net: read without running code, and written so that nobody need."""

import os

import numpy as np
import pytest
import torch

from auvtool.errors import InputError
from auvtool.nnunet_run import read_checkpoint
from auvtool.training.export import save_checkpoint


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"network_weights": {}, "init_args": {}, "trainer_name": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="system"):
        read_checkpoint(tmp_path / "evil.pth")


def test_numpy_scalars_of_nnunets_log_are_read_and_written_as_numbers(tmp_path):
    content = {"network_weights": {"w": torch.ones(2)}, "init_args": {}, "trainer_name": "nnUNetTrainer"}
    content["logging"] = {"ema": [np.float64(0.5), np.float32(0.25)], "classes": [[np.float32(1.0)]]}
    torch.save(content, tmp_path / "stock.pth")
    read = read_checkpoint(tmp_path / "stock.pth")
    assert read["logging"]["ema"] == [0.5, 0.25]
    save_checkpoint(tmp_path / "ours.pth", content)
    plain = torch.load(tmp_path / "ours.pth", weights_only=True)["logging"]  # without any allow-list
    assert [type(value) for value in plain["ema"]] == [float, float]
    assert plain["classes"] == [[1.0]]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken"])
def test_a_broken_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_another_file_of_torch_is_no_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(InputError, match="checkpoint of nnU-Net"):
        read_checkpoint(tmp_path / "x.pth")
