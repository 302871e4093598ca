"""The sums of a loss and their gradients, tile by tile, against plain autograd on whole tensors."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import denoised_label, plain_loss_sums, softmax_margins

from auvtool.training.loss_sums import Labelling, Tiling, choose_tiling, loss_sums

N_CASES, N_CLASSES = 2, 3
# As on a CPU, in parts that do not come out even, and as on a GPU: blocks of classes, one or several.
TILINGS = (
    None,
    Tiling(n_cases=1, n_classes=N_CLASSES, n_voxels=7),
    Tiling(n_cases=2, n_classes=1, n_voxels=1000),
    Tiling(n_cases=2, n_classes=2, n_voxels=1000),
)


# --- the oracle by hand


def test_margin_of_probability_three_quarters_is_log_three():
    margins = softmax_margins(torch.tensor([[0.0, math.log(3.0)]]))
    assert margins[0].tolist() == pytest.approx([-math.log(3.0), math.log(3.0)])


@given(arrays(np.float32, (1, 4, 3), elements=st.floats(-30, 30, width=32)))
def test_sigmoid_of_margins_is_softmax(logits):
    margins = softmax_margins(torch.from_numpy(logits))
    assert torch.allclose(torch.sigmoid(margins), torch.from_numpy(logits).softmax(1), atol=1e-6)


def test_denoised_label_by_hand():
    label = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 4)
    noise = torch.tensor([0.4, 0.3, 0.3, 1.0]).reshape(1, 1, 4)
    positive, negative = (denoised_label(label, noise, torch.tensor([[level]])) for level in (0.5, -1.0))
    assert positive[0, 0].tolist() == pytest.approx([0.8, 0.0, 0.0, 0.5])
    assert negative[0, 0].tolist() == pytest.approx([1.0, 0.3, 0.3, 1.0])


# --- by hand


def test_sums_by_hand():
    """Sigmoid; probability 3/4 at two voxels, of which the first has the label, and a third that is ignored."""
    output = torch.full((1, 1, 3), math.log(3.0))
    target = torch.tensor([[[1, 0, 1], [0, 0, 1]]])
    sums = loss_sums(output, target, labelling=Labelling(1, has_regions=True, ignore_label=2))
    assert sums[0, 0].tolist() == pytest.approx([0.75, 1.5, 1.0, -math.log(0.75) - math.log(0.25)])


def test_sums_of_a_denoised_label_by_hand():
    """Softmax over background and one class, both likely alike; noise 1/2."""
    output = torch.zeros(1, 3, 2)
    target = torch.tensor([[[1, 0]]])
    labelling = Labelling(1, has_regions=False, ignore_label=None)
    sums = loss_sums(output, target, labelling=labelling, level=torch.tensor([[0.5]]))
    assert sums[0, 0].tolist() == pytest.approx([0.375, 1.0, 0.75, 2 * math.log(2.0)])
    official = Labelling(1, has_regions=False, ignore_label=None, denoise="official")
    assert loss_sums(output, target, labelling=official)[0, 0].tolist() == pytest.approx(
        [0.25, 1.0, 0.5, 2 * math.log(2.0)]
    )


# --- against the oracle


def some_batch(labelling, *, noise, shape=(4, 5, 3), dtype=torch.float64, seed=0):
    """Output, target, noise of a lower resolution, level."""
    generator = torch.Generator().manual_seed(seed)
    n_channels = labelling.n_heads + (N_CLASSES if noise == "in the output" else 0)
    output = 3 * torch.randn(N_CASES, n_channels, *shape, generator=generator, dtype=dtype)
    output[0, :, 0] *= 8  # sure of itself
    output[1, :, 0] = 0  # undecided: all heads alike
    has_ignored = labelling.ignore_label is not None
    if labelling.has_regions:
        target = torch.randint(0, 2, (N_CASES, N_CLASSES + has_ignored, *shape), generator=generator).bool()
    else:
        target = torch.randint(0, N_CLASSES + 1 + has_ignored, (N_CASES, 1, *shape), generator=generator).short()
    pooled = torch.rand(N_CASES, N_CLASSES, *shape, generator=generator, dtype=dtype) if noise == "pooled" else None
    level = torch.randn(N_CASES, N_CLASSES, generator=generator, dtype=dtype) if noise != "none" else None
    return output, target, pooled, level


def plain_sums(output, target, labelling, noise, level):
    logits = output[:, : labelling.n_heads]
    if noise is None and output.shape[1] > labelling.n_heads:
        noise = torch.sigmoid(output[:, labelling.n_heads :])
    classes = range(1, N_CLASSES + 1)
    label = target[:, :N_CLASSES] if labelling.has_regions else torch.cat([target == value for value in classes], 1)
    label = label.to(output.dtype)
    if noise is not None and labelling.denoise == "official":
        label = label * (1 - noise)
    elif noise is not None:
        label = denoised_label(label, noise, level)
    margins = logits if labelling.has_regions else softmax_margins(logits)[:, 1:]
    mask = None
    if labelling.ignore_label is not None:
        mask = ~target[:, -1:] if labelling.has_regions else target != labelling.ignore_label
    return plain_loss_sums(margins, label, mask)


def with_gradients(function, weights, *inputs):
    leaves = [None if value is None else value.clone().requires_grad_() for value in inputs]
    sums = function(*leaves)
    (sums * weights.to(sums.dtype)).sum().backward()
    return sums.detach(), [None if leaf is None else leaf.grad for leaf in leaves]


KINDS = list(
    itertools.product(
        (False, True),
        (None, N_CLASSES + 1),
        ("paper", "official"),
        ("none", "in the output", "pooled"),
        ((5, 6), (4, 5, 3)),
    )
)


@pytest.mark.parametrize(("has_regions", "ignore_label", "form", "noise", "shape"), KINDS)
def test_sums_and_gradients_are_those_of_the_plain_form(has_regions, ignore_label, form, noise, shape):
    labelling = Labelling(N_CLASSES, has_regions, ignore_label, form)
    output, target, pooled, level = some_batch(labelling, noise=noise, shape=shape)
    weights = torch.randn(N_CASES, N_CLASSES, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, slopes = with_gradients(
        lambda *given: plain_sums(given[0], target, labelling, *given[1:]), weights, output, pooled, level
    )
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        inputs = [None if value is None else value.to(dtype) for value in (output, pooled, level)]
        for tiling in TILINGS:
            found, found_slopes = with_gradients(
                lambda z, n, e, tiling=tiling: loss_sums(
                    z, target, labelling=labelling, noise=n, level=e, tiling=tiling
                ),
                weights,
                *inputs,
            )
            assert torch.allclose(found.double(), expected, rtol=1e-6 if dtype is torch.float32 else 1e-12)
            for slope, found_slope in zip(slopes, found_slopes, strict=True):
                if slope is None:  # "official" has no level
                    assert found_slope is None or not found_slope.any()
                else:
                    assert found_slope.dtype is dtype
                    assert torch.allclose(found_slope.double(), slope, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("has_regions", "form", "noise"),
    [(False, "paper", "in the output"), (True, "official", "in the output"), (False, "paper", "pooled")],
)
def test_gradients_equal_finite_differences(has_regions, form, noise):
    labelling = Labelling(N_CLASSES, has_regions, None, form)
    output, target, pooled, level = some_batch(labelling, noise=noise, shape=(2, 3), seed=3)
    output = output / 3  # moderate: finite differences of a saturated sum are rounding
    inputs = [value.requires_grad_() for value in (output, pooled, level) if value is not None]
    for tiling in (None, Tiling(2, 2, 1000)):

        def sums(*given, tiling=tiling):
            z, *rest = given
            n = rest.pop(0) if pooled is not None else None
            return loss_sums(z, target, labelling=labelling, noise=n, level=rest[0], tiling=tiling)

        assert torch.autograd.gradcheck(sums, inputs)


def test_without_a_level_the_papers_form_leaves_labels_and_noise_alone():
    labelling = Labelling(N_CLASSES, has_regions=False, ignore_label=None)
    output, target, _, _ = some_batch(labelling, noise="in the output")
    output.requires_grad_()
    sums = loss_sums(output, target, labelling=labelling)
    assert torch.equal(sums, loss_sums(output[:, : N_CLASSES + 1], target, labelling=labelling))
    sums.sum().backward()
    assert not output.grad[:, N_CLASSES + 1 :].any()


def test_level_zero_leaves_the_label_and_still_learns():
    labelling = Labelling(1, has_regions=True, ignore_label=None)
    level = torch.zeros(1, 1, requires_grad=True)
    noise = torch.full((1, 1, 2), 0.25)
    sums = loss_sums(torch.zeros(1, 1, 2), torch.tensor([[[1, 0]]]), labelling=labelling, noise=noise, level=level)
    assert sums[0, 0, 2].item() == 1.0
    sums[0, 0, 2].backward()
    assert level.grad.item() == pytest.approx(-0.5)


@pytest.mark.parametrize("tiling", TILINGS)
def test_saturated_logits_have_finite_sums_and_gradients(tiling):
    """Where p rounds to 0 or 1 cross entropy is still the distance of the logits."""
    labelling = Labelling(N_CLASSES, has_regions=False, ignore_label=None)
    output = torch.zeros(1, 4, 2)
    output[0, 1, 0], output[0, 2, 0] = 60.0, -60.0  # sure of class 1 where class 2 is right
    output[0, :, 1] = torch.tensor([0.0, 300.0, -300.0, 299.0])
    output.requires_grad_()
    target = torch.tensor([[[2, 1]]])
    sums = loss_sums(output, target, labelling=labelling, tiling=tiling)
    assert sums[0, :, 3].tolist() == pytest.approx([60 - math.log(2) + 0.3132617, 120.0, 0.3132617], rel=1e-5)
    sums[..., 3].sum().backward()
    assert output.grad.isfinite().all()
    # -log p of class 2 and -log(1 - p) of class 1: down with class 1, up with class 2, and with what else there is.
    assert output.grad[0, :, 0].tolist() == pytest.approx([-0.5, 2.0, -1.0, -0.5], abs=1e-5)


def test_half_precision_is_computed_in_single():
    labelling = Labelling(N_CLASSES, has_regions=False, ignore_label=None)
    output, target, _, level = some_batch(labelling, noise="in the output", dtype=torch.float32)
    half = output.half()
    weights = torch.ones(N_CASES, N_CLASSES, 4)
    for tiling in TILINGS:
        run = [
            with_gradients(
                lambda z, e, tiling=tiling: loss_sums(z, target, labelling=labelling, level=e, tiling=tiling),
                weights,
                value,
                level,
            )
            for value in (half, half.float())
        ]
        (found, slopes), (expected, expected_slopes) = run
        assert found.dtype is torch.float32
        assert torch.allclose(found, expected)
        assert slopes[0].dtype is torch.float16
        assert torch.allclose(slopes[0].float(), expected_slopes[0], atol=2e-3)


def test_tiles_are_of_voxels_on_a_cpu_and_of_classes_on_a_gpu():
    size = {"n_cases": 2, "n_heads": 105, "n_voxels": 96**3}
    on_cpu, on_gpu = (choose_tiling(torch.device(name), **size) for name in ("cpu", "cuda"))
    assert (on_cpu.n_cases, on_cpu.n_classes) == (1, 105)
    assert on_cpu.n_voxels * 105 * 4 < 2**20  # bytes: in the cache
    assert (on_gpu.n_cases, on_gpu.n_voxels) == (2, 96**3)
    assert math.ceil(105 / on_gpu.n_classes) < 20  # times some twenty kernels


def test_nothing_as_large_as_the_output_is_kept_for_the_backward_pass():
    labelling = Labelling(N_CLASSES, has_regions=False, ignore_label=4)
    output, target, _, level = some_batch(labelling, noise="in the output")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss_sums(output.requires_grad_(), target, labelling=labelling, level=level)
    assert {tensor.data_ptr() for tensor in kept} == {tensor.data_ptr() for tensor in (output, target, level)}
