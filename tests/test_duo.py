"""The DUO loss against numbers by hand, against the equations written plainly in numpy, and by its properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import denoised_label, plain_duo_loss, softmax_margins, written_scale

from auvtool.training.duo import DuoLoss, NonFiniteLoss, class_losses
from auvtool.training.logit_scale import perception_scale


def make_loss(**changes) -> DuoLoss:
    settings_ = {
        "n_classes": 2,
        "has_regions": False,
        "ignore_label": None,
        "alpha": 0.5,
        "beta": 0.3,
        "reweight": True,
        "batch_dice": False,
        "resolution_weights": [1.0],
    }
    return DuoLoss(**{**settings_, **changes})


def softmax(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def plain_losses(probability, label, mask, beta):
    """Eq. 10's right half for each case and class, in float64."""
    losses = np.zeros(probability.shape[:2])
    for case in range(probability.shape[0]):
        for index in range(probability.shape[1]):
            keep = mask[case].astype(bool)
            p, y = probability[case, index][keep], label[case, index][keep]
            dice = (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
            bce = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
            losses[case, index] = beta * (1 - dice) + (1 - beta) * bce
    return losses


@pytest.fixture
def batch():
    """Logits (2, 3, 4, 5, 6) and exclusive labels (2, 1, 4, 5, 6)."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator)
    return logits, target


# --- the loss


def test_class_losses_by_hand():
    sums = torch.tensor([[[0.75, 1.5, 1.0, -math.log(0.75) - math.log(0.25)]]])  # probability 3/4, label 1 and 0
    dice = (2 * 0.75 + 1e-5) / (1.5 + 1 + 1e-5)
    bce = -(math.log(0.75) + math.log(0.25)) / 2
    losses = class_losses(sums, n_voxels=2, beta=0.25, batch_dice=False)
    assert losses.item() == pytest.approx(0.25 * (1 - dice) + 0.75 * bce, rel=1e-6)


def test_batch_dice_adds_up_the_cases():
    sums = torch.tensor([[[1.0, 2.0, 1.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]])  # all, then nothing found; one voxel each
    each = class_losses(sums, n_voxels=2, beta=1.0, batch_dice=False)
    both = class_losses(sums, n_voxels=2, beta=1.0, batch_dice=True)
    assert each[:, 0].tolist() == pytest.approx([1 - 2 / 3, 1.0], abs=1e-4)
    assert both[:, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


def test_without_alpha_and_noise_it_is_the_plain_loss(batch):
    logits, target = batch
    label = np.stack([target.numpy()[:, 0] == value for value in (1, 2)], 1).astype(float)
    expected = plain_losses(softmax(logits.numpy().astype(float))[:, 1:], label, np.ones((2, 4, 5, 6)), 0.3).mean()
    assert make_loss(alpha=0.0)(logits, target).item() == pytest.approx(expected, rel=1e-5)
    assert make_loss(reweight=False)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_weights_are_those_of_equation_11(batch):
    logits, target = batch
    label = np.stack([target.numpy()[:, 0] == value for value in (1, 2)], 1).astype(float)
    losses = plain_losses(softmax(logits.numpy().astype(float))[:, 1:], label, np.ones((2, 4, 5, 6)), 0.3)
    scale = np.array([[written_scale(logits[case, index].numpy()) for index in (1, 2)] for case in range(2)])
    expected = (losses / (1 + 2.0 * scale)).mean()
    assert make_loss(alpha=2.0)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def plain(logits, target, weight, **options):
    label = torch.cat([target == 1, target == 2], 1).to(logits.dtype)
    return plain_duo_loss(softmax_margins(logits)[:, 1:], label, weight, 0.3, **options)


def test_no_gradient_through_the_scale(batch):
    logits, target = batch
    logits.requires_grad_()
    make_loss(alpha=2.0)(logits, target).backward()
    weight = 1 / (1 + 2.0 * perception_scale(logits[:, 1:]))
    (expected,) = torch.autograd.grad(plain(logits, target, weight), logits)
    assert torch.allclose(logits.grad, expected, atol=1e-8)


def test_gradient_through_the_scale_on_request(batch):
    logits, target = batch[0][..., :3].double().requires_grad_(), batch[1][..., :3]
    loss = make_loss(alpha=2.0, scale_gradient=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), (logits,))
    assert loss(logits, target).item() == pytest.approx(make_loss(alpha=2.0)(logits, target).item(), rel=1e-12)


def test_static_weights_stand_in_the_place_of_the_scales(batch):
    logits, target = batch
    expected = plain(logits, target, torch.tensor([[0.9, 0.6]]).expand(2, 2))
    loss = make_loss(alpha=2.0, static_weights=[0.9, 0.6])
    assert loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(loss.last_weight, torch.tensor([[0.9, 0.6]]))


def test_class_weights_multiply_the_others(batch):
    logits, target = batch
    weight = torch.tensor([3.0, 0.5]) / (1 + 2.0 * perception_scale(logits[:, 1:]))
    found = make_loss(alpha=2.0, class_weights=[3.0, 0.5])(logits, target)
    assert found.item() == pytest.approx(plain(logits, target, weight).item(), rel=1e-6)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("shape", [(4, 5, 6), (8, 10)])
def test_the_whole_loss_equals_the_plain_form_at_every_resolution(batch_dice, shape):
    """Deep supervision, noise, an ignore label; gradients to logits, noise logits and level in float64."""
    generator = torch.Generator().manual_seed(4)
    low = tuple(side // 2 for side in shape)
    high_output, low_output = (
        torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).requires_grad_()
        for channels, size in ((5, shape), (3, low))
    )
    targets = [torch.randint(0, 4, (2, 1, *size), generator=generator) for size in (shape, low)]
    level = torch.randn(2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    inputs = (high_output, low_output, level)
    loss = make_loss(batch_dice=batch_dice, ignore_label=3, resolution_weights=[0.7, 0.3])
    loss.level = level
    found = loss([high_output, low_output], targets)
    slopes = torch.autograd.grad(found, inputs)

    noise = torch.sigmoid(high_output[:, 3:])
    pooling = {2: torch.nn.functional.adaptive_avg_pool2d, 3: torch.nn.functional.adaptive_avg_pool3d}[len(shape)]
    weight = 1 / (1 + 0.5 * perception_scale(high_output[:, 1:3]))
    expected = torch.zeros(())
    for share, logits, noise_there, target in (
        (0.7, high_output[:, :3], noise, targets[0]),
        (0.3, low_output, pooling(noise, low), targets[1]),
    ):
        label = denoised_label(torch.cat([target == 1, target == 2], 1).double(), noise_there, level)
        mask = target != 3
        margins = softmax_margins(logits)[:, 1:]
        expected = expected + share * plain_duo_loss(margins, label, weight, 0.3, mask=mask, batch_dice=batch_dice)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    for slope, expected_slope in zip(slopes, torch.autograd.grad(expected, inputs), strict=True):
        assert torch.allclose(slope, expected_slope, rtol=1e-9, atol=1e-12)


def test_the_official_form_takes_no_level_and_teaches_the_noise_head(batch):
    logits, target = batch
    noise = torch.randn(2, 2, 4, 5, 6, generator=torch.Generator().manual_seed(9)).requires_grad_()
    loss = make_loss(alpha=0.0, denoise_form="official")
    found = loss(torch.cat([logits, noise], 1), target)
    label = torch.cat([target == 1, target == 2], 1).float() * (1 - torch.sigmoid(noise))
    expected = plain_duo_loss(softmax_margins(logits)[:, 1:], label, torch.ones(2, 2), 0.3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (slope,), (expected_slope,) = torch.autograd.grad(found, noise), torch.autograd.grad(expected, noise)
    assert torch.allclose(slope, expected_slope, atol=1e-8)
    assert slope.abs().max() > 1e-6


def test_voxels_of_the_ignore_label_count_nowhere(batch):
    logits, target = batch
    target[:, :, 0] = 3
    label = np.stack([target.numpy()[:, 0] == value for value in (1, 2)], 1).astype(float)
    mask = target.numpy()[:, 0] != 3
    loss = make_loss(alpha=0.0, ignore_label=3)
    expected = plain_losses(softmax(logits.numpy().astype(float))[:, 1:], label, mask, 0.3).mean()
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_regions_have_sigmoid_outputs_and_a_last_channel_to_ignore():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 2, 4, 3, 3, generator=generator)
    target = torch.randint(0, 2, (2, 3, 4, 3, 3), generator=generator).bool()
    probability = 1 / (1 + np.exp(-logits.numpy().astype(float)))
    mask = ~target[:, 2].numpy()
    expected = plain_losses(probability, target[:, :2].numpy().astype(float), mask, 0.3).mean()
    loss = make_loss(has_regions=True, ignore_label=7, alpha=0.0)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_lower_resolutions_take_the_weights_of_the_highest(batch):
    logits, target = batch
    low_logits, low_target = torch.randn(2, 3, 2, 2, 3), target[:, :, ::2, ::3, ::2]
    high, low = make_loss(reweight=False, resolution_weights=[1.0]), make_loss(reweight=False, beta=0.3)
    together = make_loss(resolution_weights=[0.75, 0.25, 0.0])
    unused = torch.full((2, 3, 1, 1, 1), float("nan"))
    weight = 1 / (1 + 0.5 * perception_scale(logits[:, 1:]))
    losses = [
        loss._class_losses(*pair, None) for loss, pair in ((high, (logits, target)), (low, (low_logits, low_target)))
    ]
    expected = (weight * (0.75 * losses[0] + 0.25 * losses[1])).mean()
    found = together([logits, low_logits, unused], [target, low_target, target[:, :, :1, :1, :1]])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_noise_changes_labels_by_its_level(batch):
    logits, target = batch
    noise_logits = torch.randn(2, 2, 4, 5, 6, generator=torch.Generator().manual_seed(9))
    level = torch.tensor([[0.5, -1.0], [0.0, 2.0]])
    loss = make_loss(alpha=0.0)
    plain = loss(logits, target)
    loss.level = torch.zeros(2, 2)
    assert loss(torch.cat([logits, noise_logits], 1), target).item() == plain.item()
    loss.level = level
    noise = 1 / (1 + np.exp(-noise_logits.numpy().astype(float)))
    label = np.stack([target.numpy()[:, 0] == value for value in (1, 2)], 1).astype(float)
    label = np.clip(label - level.numpy()[:, :, None, None, None] * noise, 0, 1)
    expected = plain_losses(softmax(logits.numpy().astype(float))[:, 1:], label, np.ones((2, 4, 5, 6)), 0.3).mean()
    assert loss(torch.cat([logits, noise_logits], 1), target).item() == pytest.approx(expected, rel=1e-5)


def test_noise_is_averaged_for_lower_resolutions_and_gets_gradients(batch):
    logits, target = batch
    noise = torch.zeros(2, 2, 4, 5, 6)  # sigmoid: 1/2
    noise[:, :, ::2], noise[:, :, 1::2] = 1.0, -1.0  # of each pair of slices the mean is 1/2 again
    noise.requires_grad_()
    loss = make_loss(alpha=0.0, resolution_weights=[0.0, 1.0])
    loss.level = torch.ones(2, 2, requires_grad=True)
    low = loss([torch.cat([logits, noise], 1), torch.zeros(2, 3, 2, 5, 6)], [target, torch.ones(2, 1, 2, 5, 6)])
    # Class 1 everywhere: its label becomes 1 - 1/2, that of class 2 stays 0; all probabilities are 1/3.
    third, label = np.full((1, 2, 2, 5, 6), 1 / 3), np.zeros((1, 2, 2, 5, 6))
    label[:, 0] = 0.5
    assert low.item() == pytest.approx(plain_losses(third, label, np.ones((1, 2, 5, 6)), 0.3).mean(), rel=1e-5)
    low.backward()
    assert noise.grad[:, 0].abs().min() > 0
    assert loss.level.grad[:, 0].abs().min() > 0


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 5), st.integers(0, 100))
def test_more_alpha_is_less_loss(alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 3, 4, 4, 4, generator=generator)
    target = torch.randint(0, 3, (1, 1, 4, 4, 4), generator=generator)
    plain, weighted = (make_loss(alpha=value)(logits, target).item() for value in (0.0, alpha))
    assert plain / (1 + alpha) - 1e-6 <= weighted < plain


def test_nan_names_class_and_samples(batch):
    logits, target = batch
    logits[1, 2, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLoss) as caught:
        make_loss()(logits, target)
    assert (caught.value.class_index, caught.value.samples) == (1, (1,))


def test_nan_of_one_case_is_not_that_of_all_under_batch_dice(batch):
    logits, target = batch
    logits[0, 1, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteLoss) as caught:
        make_loss(batch_dice=True)(logits, target)
    assert (caught.value.class_index, caught.value.samples) == (0, (0,))


def test_nan_in_the_background_is_found_too(batch):
    logits, target = batch
    logits[0, 0, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteLoss) as caught:
        make_loss()(logits, target)
    assert caught.value.samples == (0,)


def test_half_precision_logits_give_the_loss_of_their_values(batch):
    logits, target = batch
    half = logits.half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = make_loss()(half, target)
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(make_loss()(half.float(), target).item(), rel=1e-6)
