"""U-Mamba (Ma, Li and Wang, arXiv 2401.04722): a residual U-Net with Mamba at its bottleneck or in all of its encoder.

Written from the paper and from what the released code (bowang-lab/U-Mamba 28459e3, Apache-2.0) computes. Parameters
have the names used there, but for its second copy of the encoder under `decoder.encoder`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn import functional

from auvtool.backbones.mamba import Mamba


@dataclass(frozen=True)
class Layers:
    """The layers to build of, as nnU-Net's plans name them."""

    conv_op: Any
    conv_bias: bool
    norm_op: Any
    norm_op_kwargs: dict[str, Any]
    nonlin: Any
    nonlin_kwargs: dict[str, Any]

    def convolution(self, n_inputs: int, n_outputs: int, kernel_size: Sequence[int], stride: Sequence[int]) -> Any:
        """One that keeps the size, but for the stride."""
        return self.conv_op(n_inputs, n_outputs, kernel_size, stride, [side // 2 for side in kernel_size])

    def blocks(
        self, n_blocks: int, n_inputs: int, n_outputs: int, kernel_size: Sequence[int], stride: Sequence[int]
    ) -> nn.Sequential:
        """Residual blocks, the first of which changes the number of features and the size."""
        further = [
            BasicBlockD(
                self.conv_op,
                n_outputs,
                n_outputs,
                kernel_size,
                stride=1,
                conv_bias=self.conv_bias,
                norm_op=self.norm_op,
                norm_op_kwargs=self.norm_op_kwargs,
                nonlin=self.nonlin,
                nonlin_kwargs=self.nonlin_kwargs,
            )
            for _ in range(n_blocks - 1)
        ]
        return nn.Sequential(ChangingBlock(self, n_inputs, n_outputs, kernel_size, stride), *further)


class ChangingBlock(nn.Module):
    """A residual block whose shortcut is a strided 1 x 1 (x 1) convolution."""

    def __init__(
        self, layers: Layers, n_inputs: int, n_outputs: int, kernel_size: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv1 = layers.convolution(n_inputs, n_outputs, kernel_size, stride)
        self.norm1 = layers.norm_op(n_outputs, **layers.norm_op_kwargs)
        self.act1 = layers.nonlin(**layers.nonlin_kwargs)
        self.conv2 = layers.convolution(n_outputs, n_outputs, kernel_size, [1] * len(stride))
        self.norm2 = layers.norm_op(n_outputs, **layers.norm_op_kwargs)
        self.act2 = layers.nonlin(**layers.nonlin_kwargs)
        self.conv3 = layers.convolution(n_inputs, n_outputs, [1] * len(stride), stride)

    def forward(self, features: Tensor) -> Tensor:
        """(case, feature, ...) to the same with other features and size."""
        inner = self.act1(self.norm1(self.conv1(features)))
        result: Tensor = self.act2(self.norm2(self.conv2(inner)) + self.conv3(features))
        return result


class MambaLayer(nn.Module):
    """Layer norm and Mamba over the voxels of a map, or with `channel_tokens` over its channels; not added to the map.

    In float32 also under autocast: the scan's exponentials leave the range of half precision.
    """

    def __init__(self, n_features: int, *, channel_tokens: bool = False) -> None:
        super().__init__()
        self.channel_tokens = channel_tokens
        self.norm = nn.LayerNorm(n_features)
        self.mamba = Mamba(n_features)

    def forward(self, features: Tensor) -> Tensor:
        """(case, feature, ...) to the same."""
        with torch.autocast(features.device.type, enabled=False):
            tokens = features.float().flatten(2)
            result = self.mamba(self.norm(tokens)) if self.channel_tokens else self.mamba(self.norm(tokens.mT)).mT
            return torch.reshape(result, features.shape)


@dataclass(frozen=True)
class Stages:
    """One entry for each resolution, the highest first; `n_blocks_decoder` one less, from the lowest."""

    features: Sequence[int]
    kernel_sizes: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    n_blocks: Sequence[int]
    n_blocks_decoder: Sequence[int]


class Encoder(nn.Module):
    """Stem and stages; with a `patch_size`, Mamba after the stages."""

    def __init__(
        self, layers: Layers, stages: Stages, *, input_channels: int, patch_size: Sequence[int] | None
    ) -> None:
        super().__init__()
        features, kernels = stages.features, stages.kernel_sizes
        self.stem = layers.blocks(stages.n_blocks[0], input_channels, features[0], kernels[0], [1] * len(kernels[0]))
        self.stages = nn.ModuleList(
            map(layers.blocks, stages.n_blocks, [features[0], *features[:-1]], features, kernels, stages.strides)
        )
        self.mamba_layers = nn.ModuleList(_mamba_layers(stages, patch_size) if patch_size is not None else [])

    def forward(self, image: Tensor) -> list[Tensor]:
        """The map of each stage, highest resolution first."""
        maps = []
        features = self.stem(image)
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if self.mamba_layers:
                features = self.mamba_layers[number](features)
            maps.append(features)
        return maps


def _mamba_layers(stages: Stages, patch_size: Sequence[int]) -> list[nn.Module]:
    """Over the voxels of a stage, but over its channels where there are at least as many channels as voxels.

    As released, a 2D network has one after every other stage, up to the last.
    """
    layers: list[nn.Module] = []
    every = 1 if len(patch_size) == 3 else 2
    for below, n_features, stride in zip(
        reversed(range(len(stages.features))), stages.features, stages.strides, strict=True
    ):
        patch_size = [side // step for side, step in zip(patch_size, stride, strict=True)]
        n_voxels = math.prod(patch_size)
        channel_tokens = n_voxels <= n_features
        layer = MambaLayer(n_voxels if channel_tokens else n_features, channel_tokens=channel_tokens)
        layers.append(layer if below % every == 0 else nn.Identity())
    return layers


class UpsampleLayer(nn.Module):
    """Nearest neighbours, then a 1 x 1 (x 1) convolution."""

    def __init__(self, conv_op: Any, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.conv = conv_op(n_inputs, n_outputs, 1)

    def forward(self, features: Tensor, size: torch.Size) -> Tensor:
        """(case, feature, ...) to the same with other features and the given size."""
        result: Tensor = self.conv(functional.interpolate(features, size=size, mode="nearest"))
        return result


class Decoder(nn.Module):
    """From the maps of the encoder to logits, of each resolution with `deep_supervision`, which may be switched.

    As released, the stage of full resolution of a 2D network takes no map of the encoder.
    """

    def __init__(self, layers: Layers, stages: Stages, *, num_classes: int, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        lower, upper = stages.features[:0:-1], stages.features[-2::-1]
        dimension = len(stages.strides[0])
        n_skipped = [*upper[:-1], upper[-1] if dimension == 3 else 0]
        self.n_skips = sum(map(bool, n_skipped))
        n_inputs = [below + skipped for below, skipped in zip(upper, n_skipped, strict=True)]
        strides = [[1] * dimension] * len(upper)
        self.upsample_layers = nn.ModuleList(
            UpsampleLayer(layers.conv_op, *pair) for pair in zip(lower, upper, strict=True)
        )
        self.stages = nn.ModuleList(
            map(layers.blocks, stages.n_blocks_decoder, n_inputs, upper, stages.kernel_sizes[-2::-1], strides)
        )
        self.seg_layers = nn.ModuleList(layers.conv_op(n_features, num_classes, 1) for n_features in upper)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor] | Tensor:
        """Logits, with deep supervision those of the highest resolution first."""
        features = maps[-1]
        outputs = []
        for number, skip in enumerate(reversed(maps[:-1])):
            features = self.upsample_layers[number](features, skip.shape[2:])
            if number < self.n_skips:
                features = torch.cat([features, skip], 1)
            features = self.stages[number](features)
            if self.deep_supervision or number == len(self.stages) - 1:
                outputs.append(self.seg_layers[number](features))
        return outputs[::-1] if self.deep_supervision else outputs[-1]


class UMambaBot(nn.Module):
    """U-Mamba with one Mamba, in place of the map at the bottleneck.

    As released, the lower half of the encoder's stages and the upper ones of the decoder have one block whatever the
    plans say.

    Args:
        input_channels: of an image.
        num_classes: outputs.
        deep_supervision: whether it returns logits of every resolution.
        n_stages, features_per_stage, conv_op, kernel_sizes, strides, n_conv_per_stage, n_conv_per_stage_decoder,
            conv_bias, norm_op, norm_op_kwargs, nonlin, nonlin_kwargs: as in nnU-Net's plans.
        patch_size: see `UMambaEnc`.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        n_stages: int,
        features_per_stage: Sequence[int],
        conv_op: Any,
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
        conv_bias: bool,
        norm_op: Any,
        norm_op_kwargs: dict[str, Any],
        nonlin: Any,
        nonlin_kwargs: dict[str, Any],
        patch_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        n_full = math.ceil(n_stages / 2)
        stages = Stages(
            features_per_stage,
            kernel_sizes,
            strides,
            [n if stage < n_full else 1 for stage, n in enumerate(n_conv_per_stage)],
            [n if stage < n_full else 1 for stage, n in enumerate(n_conv_per_stage_decoder)],
        )
        layers = Layers(conv_op, conv_bias, norm_op, norm_op_kwargs, nonlin, nonlin_kwargs)
        self.encoder = Encoder(layers, stages, input_channels=input_channels, patch_size=patch_size)
        self.mamba_layer = MambaLayer(features_per_stage[-1]) if patch_size is None else None
        self.decoder = Decoder(layers, stages, num_classes=num_classes, deep_supervision=deep_supervision)

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """(case, channel, ...) to logits (case, output, ...), with deep supervision one of each resolution."""
        maps = self.encoder(image)
        if self.mamba_layer is not None:
            maps[-1] = self.mamba_layer(maps[-1])
        logits: list[Tensor] | Tensor = self.decoder(maps)
        return logits

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """nnU-Net's initial weights of convolutions in space; Mamba keeps its own."""
        InitWeights_He(1e-2)(module)


class UMambaEnc(UMambaBot):
    """U-Mamba with Mamba after each stage of the encoder (in 2D after every other one), the last one included.

    Args:
        patch_size: of every image; it decides where channels are the tokens, and how long these are.
        others: see `UMambaBot`.
    """

    def __init__(self, *positional: Any, patch_size: Sequence[int], **others: Any) -> None:
        super().__init__(*positional, patch_size=patch_size, **others)
