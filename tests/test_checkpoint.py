"""Checkpoints as data; the oracle of what is dangerous is torch's own list of unsafe globals."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from auvtool.checkpoint import load_checkpoint, load_strictly, read_weights
from auvtool.errors import InputError


class WritesFile:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("key", ["model", "state_dict", "net", "network_weights", None])
def test_weights_are_found_where_their_makers_keep_them(tmp_path: Path, key: str | None) -> None:
    weights = {"a.weight": torch.arange(3.0)}
    torch.save(weights if key is None else {key: weights, "epoch": 3, "scheduler": {"step": 1}}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")["a.weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("key", ["model", None])
def test_names_of_parallel_training_lose_what_all_begin_with(tmp_path: Path, key: str | None) -> None:
    weights = {"module.a": torch.ones(1), "module.module.b": torch.zeros(1)}
    torch.save(weights if key is None else {key: weights}, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == {"a", "module.b"}
    torch.save({"module.a": torch.ones(1), "b": torch.zeros(1)}, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == {"module.a", "b"}


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("w.safetensors", "W.SAFETENSORS"):
        save_file({"a": torch.ones(2)}, tmp_path / name)
        assert read_weights(tmp_path / name)["a"].tolist() == [1, 1]
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="whole"):
        read_weights(tmp_path / "broken.safetensors")


@pytest.mark.parametrize("how", ["torch", "before torch 1.6", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused_by_name_unless_trusted(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    content = {"model": {"a": torch.ones(1)}, "config": WritesFile(trace)}
    if how != "pickle":
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert not trace.exists()
    if how != "pickle":  # a bare pickle of today is not even read, and is refused as a whole
        assert "mkdir" in str(caught.value)
        assert "--trust-checkpoint" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert read_weights(path, trust=True)["a"].tolist() == [1]
        assert trace.exists()


def test_numpy_scalars_of_a_log_are_plain_values(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "best": np.float32(0.25), "ema": [np.float64(0.5)]}, tmp_path / "w.pth")
    assert load_checkpoint(tmp_path / "w.pth")["ema"] == [0.5]
    assert read_weights(tmp_path / "w.pth")["a"].tolist() == [1]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 broken"])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "w.pth"))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"a": 1}, {1: torch.ones(1)}])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="state dict"):
        read_weights(tmp_path / "w.pth")


def test_weights_of_another_network_are_told_by_name_and_shape(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strictly(network, good, tmp_path / "w.pth", expected="a line")
    assert network(torch.ones(1, 3)).tolist() == [[3, 3]]
    bad = {"weight": torch.ones(2, 4), "scale": torch.ones(1)}
    with pytest.raises(InputError) as caught:
        load_strictly(network, bad, tmp_path / "w.pth", expected="a line")
    found = (
        "1 weights missing, such as bias; 1 weights too many, such as scale; 1 weights of another shape, such as weight"
    )
    assert f"expected a line, got {found}; " in str(caught.value)
    assert network(torch.ones(1, 3)).tolist() == [[3, 3]]  # nothing was loaded by half


@pytest.mark.parametrize("how", ["to_sparse", "meta"])
def test_tensors_that_no_network_takes_are_refused_in_one_line(tmp_path: Path, how: str) -> None:
    good = torch.ones(2, 3)
    odd = good.to_sparse() if how == "to_sparse" else good.to("meta")
    with pytest.raises(InputError, match="expected a line as plain numbers") as caught:
        load_strictly(
            torch.nn.Linear(3, 2), {"weight": odd, "bias": torch.zeros(2)}, tmp_path / "w.pth", expected="a line"
        )
    assert "\n" not in str(caught.value)
