"""The DUO loss against numbers by hand, against the equations written plainly in numpy, and by its properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auvtool.training.duo import (
    DuoLoss,
    NonFiniteLoss,
    class_losses,
    denoised_label,
    perception_scale,
    softmax_margins,
)


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


def scale_by_svd(volume):
    """Eqs. 2 to 5 of one map (d, h, w)."""
    values = np.linalg.svd(volume.reshape(len(volume), -1).astype(np.float64), compute_uv=False)
    share = values**2 / (values**2).sum()
    return -sum(p * math.log(p) for p in share if p > 0) / math.log(len(values))


@pytest.fixture
def batch():
    """Logits (2, 3, 4, 5, 6) and exclusive labels (2, 1, 4, 5, 6)."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator)
    return logits, target


# --- softmax as sigmoid


def test_margin_of_probability_three_quarters_is_log_three():
    margins = softmax_margins(torch.tensor([[0.0, math.log(3.0)]]))
    assert margins[0].tolist() == pytest.approx([-math.log(3.0), math.log(3.0)])


@given(arrays(np.float32, (1, 4, 3), elements=st.floats(-30, 30, width=32)))
def test_sigmoid_of_margins_is_softmax(logits):
    margins = softmax_margins(torch.from_numpy(logits))
    assert torch.allclose(torch.sigmoid(margins), torch.from_numpy(logits).softmax(1), atol=1e-6)


def test_margins_of_huge_logits_are_finite_and_their_cross_entropy_exact():
    logits = torch.tensor([[0.0, 300.0, -300.0]], requires_grad=True)
    margins = softmax_margins(logits)
    assert margins.isfinite().all()
    assert margins[0, 0].item() == pytest.approx(-300.0)
    assert torch.nn.functional.softplus(-margins[0, 2]).item() == pytest.approx(600.0)  # -log p, where p underflows
    margins.sum().backward()
    assert logits.grad.isfinite().all()


def test_gradient_of_margins():
    logits = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(softmax_margins, (logits,))


# --- scale


def test_scale_is_one_for_equal_singular_values_and_zero_at_rank_one():
    equal = torch.eye(6).reshape(1, 1, 6, 2, 3)
    single = torch.outer(torch.arange(1.0, 7.0), torch.arange(1.0, 7.0)).reshape(1, 1, 6, 2, 3)
    maps = torch.cat([equal, single, torch.zeros(1, 1, 6, 2, 3)], 1)
    assert perception_scale(maps)[0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("shape", [(5, 4, 3), (9, 2, 2)])  # the second has more rows than columns
def test_scale_equals_the_one_by_svd(shape):
    maps = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1)) + 0.5
    expected = [[scale_by_svd(maps[case, index].numpy()) for index in range(3)] for case in range(2)]
    assert np.allclose(perception_scale(maps).numpy(), expected, atol=1e-5)


def test_scale_of_a_2d_network_takes_the_map_as_a_matrix():
    maps = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(1))
    expected = [scale_by_svd(maps[0, index].numpy()) for index in range(2)]
    assert perception_scale(maps)[0].tolist() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=25)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_scale_ignores_gain_and_slice_order(gain, seed):
    maps = torch.randn(1, 1, 6, 4, 4, generator=torch.Generator().manual_seed(seed))
    scale = perception_scale(maps)
    assert torch.allclose(perception_scale(gain * maps), scale, atol=1e-5)
    assert torch.allclose(perception_scale(maps.flip(2)), scale, atol=1e-5)
    assert 0 <= scale.item() <= 1


def test_scale_is_taken_outside_autocast_and_without_gradient():
    maps = torch.randn(1, 2, 6, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = perception_scale(maps)
    assert torch.equal(inside, perception_scale(maps))
    assert not inside.requires_grad


def test_a_single_slice_has_no_scale():
    with pytest.raises(ValueError, match="2 x 2"):
        perception_scale(torch.zeros(1, 1, 1, 4, 4))


# --- denoised label


def test_denoised_label_by_hand():
    label = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 4)
    noise = torch.tensor([0.4, 0.3, 0.3, 1.0]).reshape(1, 1, 4)
    positive = denoised_label(label, noise=noise, level=torch.tensor([[0.5]]))
    negative = denoised_label(label, noise=noise, level=torch.tensor([[-1.0]]))
    assert positive[0, 0].tolist() == pytest.approx([0.8, 0.0, 0.0, 0.5])
    assert negative[0, 0].tolist() == pytest.approx([1.0, 0.3, 0.3, 1.0])


def test_level_zero_leaves_the_label_and_still_learns():
    level = torch.zeros(1, 1, requires_grad=True)
    label = torch.tensor([1.0, 0.0]).reshape(1, 1, 2)
    denoised = denoised_label(label, noise=torch.full((1, 1, 2), 0.25), level=level)
    assert torch.equal(denoised, label)
    denoised.sum().backward()
    assert level.grad.item() == pytest.approx(-0.5)


# --- the loss


def test_class_losses_by_hand():
    margins = torch.full((1, 1, 2), math.log(3.0))  # probability 3/4
    label = torch.tensor([[[1.0, 0.0]]])
    dice = (2 * 0.75 + 1e-5) / (1.5 + 1 + 1e-5)
    bce = -(math.log(0.75) + math.log(0.25)) / 2
    losses = class_losses(margins, label, mask=None, beta=0.25, batch_dice=False)
    assert losses.item() == pytest.approx(0.25 * (1 - dice) + 0.75 * bce, rel=1e-6)
    only_first = class_losses(margins, label, mask=torch.tensor([[[1.0, 0.0]]]), beta=0.0, batch_dice=False)
    assert only_first.item() == pytest.approx(-math.log(0.75), rel=1e-6)


def test_batch_dice_adds_up_the_cases():
    margins = torch.tensor([[[20.0, 20.0]], [[-20.0, -20.0]]])  # probability 1 and 0
    label = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    each = class_losses(margins, label, mask=None, beta=1.0, batch_dice=False)
    both = class_losses(margins, label, mask=None, beta=1.0, batch_dice=True)
    assert each[:, 0].tolist() == pytest.approx([1 - 2 / 3, 1.0], abs=1e-4)
    assert both.expand(2, 1)[:, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


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
    scale = np.array([[scale_by_svd(logits[case, index].numpy()) for index in (1, 2)] for case in range(2)])
    expected = (losses / (1 + 2.0 * scale)).mean()
    assert make_loss(alpha=2.0)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_no_gradient_through_the_scale(batch):
    logits, target = batch
    logits.requires_grad_()
    make_loss(alpha=2.0)(logits, target).backward()
    weight = 1 / (1 + 2.0 * perception_scale(logits[:, 1:]))
    label = torch.cat([target == 1, target == 2], 1).float()
    by_hand = class_losses(softmax_margins(logits)[:, 1:], label, mask=None, beta=0.3, batch_dice=False)
    (expected,) = torch.autograd.grad((weight * by_hand).mean(), logits)
    assert torch.allclose(logits.grad, expected, atol=1e-8)


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
