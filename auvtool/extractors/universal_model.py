"""The network of the CLIP-Driven Universal Model, with a Swin-UNETR as its backbone.

Liu et al., CLIP-Driven Universal Model for Organ Segmentation and Tumor Detection, ICCV 2023 (arXiv 2301.00785). A
vector of the name of each organ, by CLIP's text encoder, and the pooled bottleneck of the image together make the
parameters of three 1x1x1 convolutions (8, 8 and 1 outputs), which turn the decoder's last maps into the logits of that
organ; the head is that of DoDNet (Zhang et al., CVPR 2021). Written from what the papers say, with MONAI's Swin-
UNETR and without the authors' code, whose licence allows no derivatives; what that computes is the oracle of a test.
Names of modules are those of the authors' checkpoints, which carry the vectors of the 32 names.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as nn_functional
from jaxtyping import Float
from monai.networks.nets import SwinUNETR  # type: ignore[attr-defined]  # its __init__ imports it without __all__
from torch import nn

N_ORGANS = 32
N_FEATURES = 8  # maps from which the convolutions of every organ start
_FEATURE_SIZE = 48
_TEXT, _CONDITION = 512, 256
# Weights of the three convolutions of an organ, then their biases, in the order in which they are predicted.
_PARAMETERS = (N_FEATURES * N_FEATURES, N_FEATURES * N_FEATURES, N_FEATURES, N_FEATURES, N_FEATURES, 1)
_GROUPS = 16
_ORGANS_AT_ONCE = 4  # 57 MB of hidden maps each for a window of 96^3
# In which order MONAI up to 1.4 joined the eight voxels of a cube, two of them twice and two of them never. Weights of
# that time want it; MONAI 1.5 has all eight, loads the same weights, and decodes something else.
_JOINED = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


class LegacyPatchMerging(nn.Module):
    """The halving of resolution between stages as in MONAI up to 1.4, for `SwinUNETR(downsample=...)`."""

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, spatial_dims: int = 3) -> None:
        super().__init__()
        if spatial_dims != 3:
            raise ValueError(f"LegacyPatchMerging merges volumes, got {spatial_dims} dimensions")
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Float[torch.Tensor, "b d h w c"]) -> Float[torch.Tensor, "b d2 h2 w2 c2"]:
        d, h, w = (side % 2 for side in x.shape[1:4])
        x = nn_functional.pad(x, (0, 0, 0, w, 0, h, 0, d))
        merged: torch.Tensor = self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in _JOINED], -1)))
        return merged


class UniversalModel(nn.Module):
    """Backbone and head; sides of its input are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SwinUNETR(
            in_channels=1,
            out_channels=1,
            feature_size=_FEATURE_SIZE,
            downsample=LegacyPatchMerging,  # type: ignore[arg-type]  # MONAI means a class, as its own are
        )
        self.backbone.out = nn.Identity()  # type: ignore[assignment]  # the head takes its place
        self.backbone.encoder10.register_forward_hook(self._keep_bottleneck)
        deepest = 16 * _FEATURE_SIZE
        self.precls_conv = nn.Sequential(
            nn.GroupNorm(_GROUPS, _FEATURE_SIZE), nn.ReLU(), nn.Conv3d(_FEATURE_SIZE, N_FEATURES, 1)
        )
        self.GAP = nn.Sequential(
            nn.GroupNorm(_GROUPS, deepest), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Conv3d(deepest, _CONDITION, 1)
        )
        self.controller = nn.Conv3d(2 * _CONDITION, sum(_PARAMETERS), 1)
        self.text_to_vision = nn.Linear(_TEXT, _CONDITION)
        self.organ_embedding: torch.Tensor
        self.register_buffer("organ_embedding", torch.zeros(N_ORGANS, _TEXT))

    def forward(
        self, windows: Float[torch.Tensor, "window 1 d h w"], organs: Sequence[int]
    ) -> tuple[Float[torch.Tensor, "window map d h w"], Float[torch.Tensor, "window feature d2 h2 w2"]]:
        """The 8 maps before the head with the logits of `organs` after them, and the bottleneck."""
        features = self.precls_conv(self.backbone(windows))
        bottleneck = self._bottleneck
        parameters = self.head_parameters(bottleneck, organs)
        logits = [organ_logits(one.flatten(1), own) for one, own in zip(features, parameters, strict=True)]
        stacked = torch.stack(logits).reshape(len(windows), len(organs), *features.shape[2:])
        return torch.cat([features, stacked], dim=1), bottleneck

    def head_parameters(
        self, bottleneck: Float[torch.Tensor, "window feature d2 h2 w2"], organs: Sequence[int]
    ) -> Float[torch.Tensor, "window organ parameter"]:
        """Parameters of the convolutions of each organ; the image's part of the condition stands before the text's."""
        image = self.GAP(bottleneck).flatten(1)[:, None].expand(-1, len(organs), -1)
        text = torch.relu(self.text_to_vision(self.organ_embedding[list(organs)]))[None].expand(len(image), -1, -1)
        condition = torch.cat([image, text], dim=2).flatten(0, 1)[..., None, None, None]
        parameters: torch.Tensor = self.controller(condition).reshape(len(image), len(organs), -1)
        return parameters

    def _keep_bottleneck(self, module: object, arguments: object, output: torch.Tensor) -> None:
        self._bottleneck = output


def organ_logits(
    features: Float[torch.Tensor, "feature voxel"], parameters: Float[torch.Tensor, "organ parameter"]
) -> Float[torch.Tensor, "organ voxel"]:
    """What the three convolutions of each organ make of the maps, with ReLU between them."""
    found = []
    for some in torch.split(parameters, _ORGANS_AT_ONCE):
        first, second, third, *biases = torch.split(some, list(_PARAMETERS), dim=1)
        bias_1, bias_2, bias_3 = (bias[..., None] for bias in biases)
        maps = features.expand(len(some), -1, -1)
        maps = torch.relu(torch.baddbmm(bias_1, first.reshape(-1, N_FEATURES, N_FEATURES), maps))
        maps = torch.relu(torch.baddbmm(bias_2, second.reshape(-1, N_FEATURES, N_FEATURES), maps))
        found.append(torch.baddbmm(bias_3, third.reshape(-1, 1, N_FEATURES), maps)[:, 0])
    return torch.cat(found)
