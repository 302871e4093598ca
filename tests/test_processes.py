"""Two processes on a CPU that share a batch do what one does with the whole of it."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training_phantoms import RECIPE

from auvtool.errors import InputError, UsageError
from auvtool.nnunet_run import read_checkpoint
from auvtool.training.duo import DuoLoss
from auvtool.training.export import NOISE_KEY
from auvtool.training.noise import NoiseLevels, NoisySegmentationHead
from auvtool.training.processes import (
    check_processes,
    number_of_processes,
    own_rank,
    run_processes,
    share_gradient,
    summed_over_processes,
)
from auvtool.training.session import train

CASES = ("a", "b", "c", "d")


def both_dice(_job, _device, send):
    torch.set_num_threads(1)
    return [two_steps(batch_dice, send) for batch_dice in (False, True)]


def two_steps(batch_dice, send):
    """Gradients of two batches and the levels after them, as plain lists; the second process has one case of three."""
    torch.manual_seed(own_rank())  # wrapping makes all networks that of the first process
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), NoisySegmentationHead(nn.Conv3d(4, 3, 1), n_classes=2))
    levels = NoiseLevels(CASES, 2)
    share_gradient(levels.values)
    loss = DuoLoss(
        n_classes=2,
        has_regions=False,
        ignore_label=None,
        alpha=0.5,
        beta=0.5,
        reweight=True,
        batch_dice=batch_dice,
        resolution_weights=[1.0],
    )
    wrapped = DistributedDataParallel(network) if number_of_processes() > 1 else network
    optimizer = torch.optim.SGD([*network.parameters(), levels.values], lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(5)
    gradients = []
    for case_ids in (("a", "b", "c"), ("d", "c", "a")):
        data = torch.randn(3, 1, 6, 5, 4, generator=generator)
        target = torch.randint(0, 3, (3, 1, 6, 5, 4), generator=generator)
        own = slice(None) if number_of_processes() == 1 else (slice(0, 2), slice(2, 3))[own_rank()]
        loss.process_share = len(case_ids[own]) * number_of_processes() / len(case_ids)
        loss.level = levels(case_ids[own])
        optimizer.zero_grad()
        value = loss(wrapped(data[own]), target[own])
        value.backward()
        gradients.append([parameter.grad.flatten().tolist() for parameter in (*network.parameters(), levels.values)])
        optimizer.step()
        levels.project()
        total = summed_over_processes(value.detach().clone()) / number_of_processes()
        send(total.item())
    checksum = sum(parameter.detach().double().sum() for parameter in (*network.parameters(), levels.values))
    sums = summed_over_processes(checksum.clone()) / number_of_processes()
    assert sums == checksum  # the same on every process
    return {"gradients": gradients, "levels": levels.values.tolist()}


def test_loss_noise_head_and_levels_are_those_of_the_whole_batch():
    losses = []
    shared = run_processes(both_dice, None, n_processes=2, device="cpu", on_message=losses.append)
    expected_losses = []
    alone = both_dice(None, None, expected_losses.append)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert len(set(expected_losses)) == 4
    for kind, expected_kind in zip(shared, alone, strict=True):
        for found, expected in zip(kind["gradients"], expected_kind["gradients"], strict=True):
            assert any(expected[-1])  # of the table e
            for of_parameter, expected_of_parameter in zip(found, expected, strict=True):
                assert of_parameter == pytest.approx(expected_of_parameter, rel=1e-4, abs=1e-7)
        for row, expected_row in zip(kind["levels"], expected_kind["levels"], strict=True):
            assert row == pytest.approx(expected_row, rel=1e-3, abs=1e-5)


def fail_in_the_second(_job, device, send):
    if own_rank() == 1:
        raise InputError("epoch 3", expected="a finite loss", found="NaN", cure="lower --lr")
    summed_over_processes(torch.ones(1))  # waits for the other


def die_in_the_second(_job, device, send):
    if own_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    summed_over_processes(torch.ones(1))


def test_an_error_of_one_process_ends_all_and_is_told():
    with pytest.raises(InputError, match="epoch 3: expected a finite loss"):
        run_processes(fail_in_the_second, None, n_processes=2, device="cpu", on_message=print)


def test_a_killed_process_ends_all():
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL"):
        run_processes(die_in_the_second, None, n_processes=2, device="cpu", on_message=print)


@pytest.mark.parametrize(
    ("device", "batch_size", "message"),
    [("cuda:1", 2, "leave out its number"), ("cuda", None, "GPUs of this machine"), ("cpu", 2, "--batch-size")],
)
def test_what_cannot_be_shared_is_refused(device, batch_size, message):
    with pytest.raises(UsageError, match=message):
        check_processes(max(3, torch.cuda.device_count() + 1), device=device, batch_size=batch_size)


def test_two_processes_train_a_run(trained):
    request = replace(trained.request, run=trained.folder / "SHARED", n_processes=2, recipe=replace(RECIPE, epochs=1))
    rows: list = []
    outcome = train(request, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [0]
    assert set(rows[0]["scale"]) == {"organ", "lesion"}
    checkpoint = read_checkpoint(outcome.checkpoint)
    assert not [name for name in checkpoint["network_weights"] if name.startswith("module.") or "noise" in name]
    levels = checkpoint[NOISE_KEY]["levels"]
    assert levels.mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert levels.abs().max() > 0.1
    summary = json.loads((outcome.checkpoint.parent / "training_summary.json").read_text())
    assert (summary["n_devices"], summary["n_iterations_timed"]) == (2, RECIPE.iterations)
