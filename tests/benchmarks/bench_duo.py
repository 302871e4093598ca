"""Time and memory of DUO's loss, and of a whole training iteration with it, against nnU-Net's own loss.

By hand: pytest -s tests/benchmarks/bench_duo.py
A smaller patch for a busy machine, fewer classes: BENCH_DUO_SIDE=64 BENCH_DUO_CLASSES=3,16 pytest -s ...
"""

import concurrent.futures
import math
import multiprocessing
import os
import re
import statistics
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from auvtool.training.duo import DuoLoss
from auvtool.training.noise import attach_noise_head

SIDE = int(os.environ.get("BENCH_DUO_SIDE", "96"))
CLASSES = tuple(int(number) for number in os.environ.get("BENCH_DUO_CLASSES", "3,16,105").split(","))
N_CASES = 2
N_RUNS = int(os.environ.get("BENCH_DUO_RUNS", "5"))
N_ITERATIONS = 3
STAGES = 5


def nnunets_loss():
    """As its trainer builds it, for one resolution."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    return DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        weight_ce=1,
        weight_dice=1,
        ignore_label=None,
        dice_class=MemoryEfficientSoftDiceLoss,
    )


def duo_loss(n_classes, device, *, denoise, **options):
    loss = DuoLoss(
        n_classes=n_classes,
        has_regions=False,
        ignore_label=None,
        alpha=0.5,
        beta=0.5,
        reweight=True,
        batch_dice=False,
        resolution_weights=[1.0],
        **options,
    )
    if denoise:
        loss.level = torch.randn(N_CASES, n_classes, device=device, requires_grad=True)
    return loss


class PlainDuo(nn.Module):
    """Eq. 10 as one would write it first: whole tensors, autograd, all weights one."""

    def forward(self, output, target):
        n_classes = output.shape[1] - 1
        p = output.softmax(1)[:, 1:]
        label = torch.cat([target == value for value in range(1, n_classes + 1)], 1).float()
        cross_entropy = functional.binary_cross_entropy(p, label, reduction="none").mean((2, 3, 4))
        overlap, size = (p * label).sum((2, 3, 4)), p.sum((2, 3, 4)) + label.sum((2, 3, 4))
        return (0.5 * (1 - (2 * overlap + 1e-5) / (size + 1e-5)) + 0.5 * cross_entropy).mean()


class ClassLoop(nn.Module):
    """The shape of the published snippet: one-hot targets, a loop over classes and cases, S from an SVD of each map.

    Its binary cross entropy alone, without the Dice that every other row has.
    """

    def forward(self, output, target):
        n_classes = output.shape[1] // 2
        logits, noise = output[:, 1 : n_classes + 1], output[:, n_classes + 1 :]
        label = torch.cat([target == value for value in range(1, n_classes + 1)], 1).float()
        cleaned = (label * (1 - noise.sigmoid())).detach()
        total = 0.0
        for case in range(len(output)):
            for number in range(n_classes):
                one = logits[case, number]
                with torch.no_grad():
                    energies = torch.linalg.svd(one.reshape(len(one), -1), full_matrices=False).S
                    share = energies / energies.sum()
                    scale = -(share * share.log()).sum() / math.log(len(share))
                total = total + functional.binary_cross_entropy_with_logits(one, cleaned[case, number]) / (
                    1 + 0.5 * scale
                )
        return total / (len(output) * n_classes)


def losses(n_classes, device):
    """Name -> loss and number of channels of its input."""
    return {
        "nnU-Net": (nnunets_loss(), n_classes + 1),
        "DUO": (duo_loss(n_classes, device, denoise=True), 2 * n_classes + 1),
        "DUO, no noise head": (duo_loss(n_classes, device, denoise=False), n_classes + 1),
        "DUO, gradient through S": (duo_loss(n_classes, device, denoise=True, scale_gradient=True), 2 * n_classes + 1),
        "plain autograd, no noise head": (PlainDuo(), n_classes + 1),
        "loop over classes, as published": (ClassLoop(), 2 * n_classes + 1),
    }


def batch(n_channels, n_classes, device):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(N_CASES, n_channels, SIDE, SIDE, SIDE, generator=generator).to(device)
    target = torch.randint(0, n_classes + 1, (N_CASES, 1, SIDE, SIDE, SIDE), generator=generator).short().to(device)
    return output.requires_grad_(), target


def seconds(function, device):
    """CPU seconds, which other work on the machine hardly moves; on a GPU those of the wall."""
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def forward_and_backward(loss, output, target):
    output.grad = None
    loss(output, target).backward()


def by_turns(functions, device, n_runs):
    """Median seconds of each function, in turns, after one to warm up."""
    runs = [[seconds(function, device) for function in functions] for _ in range(n_runs + 1)][1:]
    return [statistics.median(side) for side in zip(*runs, strict=True)]


def resident_mib(which):
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{which}:\s+(\d+) kB", status).group(1)) / 1024


def extra_mib(name, n_classes, device):
    """Peak memory of loss and gradient less what stood before, network's output and target."""
    torch.set_num_threads(1)
    loss, n_channels = losses(n_classes, device)[name]
    tiny = torch.zeros(N_CASES, n_channels, 8, 8, 8, device=device, requires_grad=True)
    forward_and_backward(loss, tiny, torch.ones(N_CASES, 1, 8, 8, 8, dtype=torch.int16, device=device))
    output, target = batch(n_channels, n_classes, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward_and_backward(loss, output, target)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    forward_and_backward(loss, output, target)
    return resident_mib("VmHWM") - before


def in_a_process_of_its_own(function, *arguments):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


class Network(nn.Module):
    """nnU-Net's plain network of five stages, at one resolution, with a noise head or without."""

    def __init__(self, n_classes, *, denoise):
        super().__init__()
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        self.network = PlainConvUNet(
            1,
            STAGES,
            [32, 64, 128, 256, 320],
            nn.Conv3d,
            3,
            [1, 2, 2, 2, 2],
            2,
            n_classes + 1,
            2,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )
        if denoise:
            attach_noise_head(self.network, n_classes)

    def forward(self, image):
        return self.network(image)


def iterations(n_classes, device):
    """Functions that each do one training step: nnU-Net's loss, DUO."""
    functions = []
    image = torch.randn(N_CASES, 1, SIDE, SIDE, SIDE, device=device)
    _, target = batch(1, n_classes, device)
    for denoise, loss in ((False, nnunets_loss()), (True, duo_loss(n_classes, device, denoise=True))):
        torch.manual_seed(0)
        network = Network(n_classes, denoise=denoise).to(device).train()
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.99, nesterov=True)

        def step(network=network, loss=loss, optimizer=optimizer):
            optimizer.zero_grad()
            with torch.autocast(device, enabled=device == "cuda"):
                value = loss(network(image), target)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()

        functions.append(step)
    return functions


def print_losses(device):
    print(f"\n{device}, {N_CASES} x {SIDE}^3, median of {N_RUNS}; memory in units of one float map a class")
    print("| classes | loss | s | of nnU-Net's | extra MiB | in logits |")
    print("|---|---|---|---|---|---|")
    for n_classes in CLASSES:
        named = losses(n_classes, device)
        inputs = {n_channels: batch(n_channels, n_classes, device) for _, n_channels in named.values()}
        functions = [
            lambda loss=loss, given=inputs[n_channels]: forward_and_backward(loss, *given)
            for loss, n_channels in named.values()
        ]
        times = by_turns(functions, device, N_RUNS)
        del inputs, functions
        for name, taken in zip(named, times, strict=True):
            memory = in_a_process_of_its_own(extra_mib, name, n_classes, device)
            logits = N_CASES * (n_classes + 1) * SIDE**3 * 4 / 2**20
            row = f"{taken:.3f} | {taken / times[0]:.2f} | {memory:.0f} | {memory / logits:.1f}"
            print(f"| {n_classes} | {name} | {row} |", flush=True)


def print_iterations(device):
    print(f"\n{device}, whole iterations, {N_CASES} x {SIDE}^3, median of {N_ITERATIONS}")
    print("| classes | nnU-Net's loss, s | DUO with noise head, s | ratio |")
    print("|---|---|---|---|")
    for n_classes in CLASSES:
        base, duo = by_turns(iterations(n_classes, device), device, N_ITERATIONS)
        print(f"| {n_classes} | {base:.2f} | {duo:.2f} | {duo / base:.3f} |", flush=True)


def test_losses():
    torch.set_num_threads(1)
    print_losses("cpu")


def test_iterations():
    torch.set_num_threads(1)
    print_iterations("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    print_losses("cuda")
    print_iterations("cuda")
