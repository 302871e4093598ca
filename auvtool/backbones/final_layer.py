"""The last convolution of a network: features of full resolution go in, logits come out."""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor, nn

Holder: TypeAlias = nn.ModuleList | nn.Sequential

# Where nnU-Net's networks and U-Mamba, and where Swin-UNETR have it: the last of these layers.
HOLDERS = ("decoder.seg_layers", "out.conv")


def final_layer(network: nn.Module) -> tuple[Holder, nn.Conv2d | nn.Conv3d]:
    """The layers of which the last is the final convolution, and that one.

    Raises:
        ValueError: the network has none of `HOLDERS` that ends in a convolution.
    """
    for path in HOLDERS:
        layers = _submodule(network, path)
        last = layers[-1] if isinstance(layers, nn.ModuleList | nn.Sequential) and len(layers) else None
        if isinstance(layers, nn.ModuleList | nn.Sequential) and isinstance(last, nn.Conv2d | nn.Conv3d):
            return layers, last
    raise ValueError(f"expected {' or '.join(HOLDERS)} ending in a convolution, got {type(network).__name__}")


def final_weight(state: Mapping[str, Tensor]) -> Tensor | None:
    """The weight (output, feature, ...) of the final convolution among a network's weights; None where it has none."""
    for path in HOLDERS:
        weights = [tensor for name, tensor in state.items() if name.startswith(f"{path}.") and name.endswith(".weight")]
        if weights and weights[-1].ndim in {4, 5}:
            return weights[-1]
    return None


def _submodule(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None
