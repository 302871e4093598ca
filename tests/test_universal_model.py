"""The Universal Model's network: its oracle is the authors' own, run and not read; MONAI 1.4.0 and a loop over voxels
are those of its backbone and head.
"""

import numpy as np
import pytest
import torch
from model_weights import random_volume, random_weights
from torch import nn

from auvtool.extractors.universal_model import LegacyPatchMerging, UniversalModel, organ_logits


@pytest.fixture(scope="module")
def network() -> UniversalModel:
    torch.set_num_threads(1)
    return UniversalModel().eval()


def load_backbone(backbone: nn.Module) -> None:
    shapes = {
        name: tuple(t.shape) for name, t in backbone.state_dict().items() if "relative_position_index" not in name
    }
    backbone.load_state_dict(random_weights(shapes), strict=False)


def figures(values: torch.Tensor) -> list[float]:
    values = values.double()
    return [float(one) for one in (values.mean(), values.std(), values.abs().max(), values.flatten()[12345])]


def test_the_backbone_is_that_of_monai_1_4(network) -> None:
    load_backbone(network.backbone)
    with torch.inference_mode():
        decoded = network.backbone(random_volume(64, 64, 64))
    # What SwinUNETR of monai==1.4.0 gives for these weights and this volume.
    assert figures(decoded) == pytest.approx([0.556462, 0.826814, 7.756437, -0.004716], abs=1e-4)
    bottleneck = network._bottleneck
    assert bottleneck.shape == (1, 768, 2, 2, 2)
    many = torch.cat([bottleneck.flatten()] * 20)
    assert figures(many) == pytest.approx([0.562103, 0.832505, 5.601056, 1.172212], abs=1e-4)


def test_the_network_is_that_of_the_authors() -> None:
    """All of it, from a window to the logits of each organ, with every weight random."""
    network = UniversalModel().eval()
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items() if "relative_position_index" not in name}
    assert len(shapes) == 162
    network.load_state_dict(random_weights(shapes), strict=False)
    with torch.inference_mode():
        maps, _ = network(random_volume(64, 64, 64), list(range(32)))
    # What Universal_model(img_size=(64, 64, 64), in_channels=1, out_channels=32, backbone="swinunetr",
    # encoding="word_embedding") of ljwztc/CLIP-Driven-Universal-Model gives for these weights under monai==1.4.0.
    expected = {
        0: [48.571748, 39.086613, 338.538147, 115.619308],
        5: [48.506703, 40.124834, 343.570923, 115.951248],
        24: [52.767189, 42.283159, 369.974945, 120.921982],
        31: [49.698069, 41.526341, 344.047119, 119.651215],
    }
    for organ, of_authors in expected.items():
        assert figures(maps[0, 8 + organ]) == pytest.approx(of_authors, abs=1e-2)


def test_the_merging_of_today_is_another(network) -> None:
    from monai.networks.nets import PatchMerging

    stock, ours = PatchMerging(dim=2), LegacyPatchMerging(2)
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(1, 5, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    assert ours(x).shape == stock(x).shape == (1, 3, 2, 2, 4)
    assert not torch.allclose(ours(x), stock(x), atol=0.05)
    with pytest.raises(ValueError, match="2 dimensions"):
        LegacyPatchMerging(2, spatial_dims=2)


def test_merging_by_hand() -> None:
    """Voxel 4 of a cube stands at (1, 0, 1); 5 and 6 are 2 and 3 again; (1, 1, 0) and (0, 1, 1) are in none."""
    merging = LegacyPatchMerging(1)
    merging.norm = nn.Identity()
    merging.reduction = nn.Identity()
    cube = torch.tensor([100 * d + 10 * h + w for d in (0, 1) for h in (0, 1) for w in (0, 1)]).reshape(1, 2, 2, 2, 1)
    assert merging(cube.float()).flatten().tolist() == [0, 100, 10, 1, 101, 10, 1, 111]


def test_the_head_by_a_loop_over_voxels() -> None:
    random = np.random.RandomState(0)
    features, parameters = random.normal(size=(8, 5)), random.normal(size=(7, 153))
    expected = np.empty((7, 5))
    for organ in range(7):
        at, layers = 0, []
        for n_out in (8, 8, 1):
            layers.append(parameters[organ, at : at + 8 * n_out].reshape(n_out, 8))
            at += 8 * n_out
        biases = parameters[organ, at : at + 8], parameters[organ, at + 8 : at + 16], parameters[organ, at + 16 :]
        for voxel in range(5):
            values = features[:, voxel]
            for number, (weight, bias) in enumerate(zip(layers, biases, strict=True)):
                values = np.array([sum(weight[i, j] * values[j] for j in range(8)) + bias[i] for i in range(len(bias))])
                values = np.maximum(values, 0) if number < 2 else values
            expected[organ, voxel] = values[0]
    found = organ_logits(torch.from_numpy(features), torch.from_numpy(parameters))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_the_parameters_follow_from_image_and_name(network) -> None:
    """The pooled bottleneck, then the name's vector, through one linear map; in plain numpy."""
    shapes = {k: tuple(t.shape) for k, t in network.state_dict().items() if not k.startswith("backbone.")}
    state = random_weights(shapes)
    network.load_state_dict(state, strict=False)
    bottleneck = np.random.RandomState(1).normal(size=(2, 768, 2, 3, 2))
    found = network.head_parameters(torch.from_numpy(bottleneck).float(), [31, 4, 5]).detach().numpy()
    s = {name: tensor.double().numpy() for name, tensor in state.items()}
    for window in range(2):
        groups = bottleneck[window].reshape(16, -1)
        normal = (groups - groups.mean(axis=1, keepdims=True)) / np.sqrt(groups.var(axis=1, keepdims=True) + 1e-5)
        normal = normal.reshape(768, -1) * s["GAP.0.weight"][:, None] + s["GAP.0.bias"][:, None]
        image = s["GAP.3.weight"].reshape(256, 768) @ np.maximum(normal, 0).mean(axis=1) + s["GAP.3.bias"]
        for place, organ in enumerate((31, 4, 5)):
            name = s["text_to_vision.weight"] @ s["organ_embedding"][organ] + s["text_to_vision.bias"]
            condition = np.concatenate([image, np.maximum(name, 0)])
            expected = s["controller.weight"].reshape(153, 512) @ condition + s["controller.bias"]
            np.testing.assert_allclose(found[window, place], expected, rtol=1e-4, atol=1e-4)


def test_windows_are_decoded_by_themselves(network) -> None:
    """Two windows at once give what each gives alone, and fewer organs the same logits."""
    volume = random_volume(64, 64, 128)
    windows = torch.cat([volume[..., :64], volume[..., 64:]])
    with torch.inference_mode():
        both, _ = network(windows, [3, 8, 1, 30, 2])
        alone, _ = network(windows[1:], [8])
    assert both.shape == (2, 13, 64, 64, 64)
    torch.testing.assert_close(both[1, :8], alone[0, :8], rtol=0, atol=1e-4)
    torch.testing.assert_close(both[1, 9], alone[0, 8], rtol=0, atol=1e-3)


def test_mixed_precision_is_coarser_and_no_more(network) -> None:
    volume = random_volume(64, 64, 64)
    with torch.inference_mode():
        exact, _ = network(volume, [8, 1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse, _ = network(volume, [8, 1])
    for one, other in zip(coarse[0].float(), exact[0], strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.97


def test_it_is_as_large_as_the_papers(network) -> None:
    assert sum(one.numel() for one in network.parameters()) == pytest.approx(62.6e6, abs=0.05e6)
