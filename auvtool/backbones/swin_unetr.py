"""Swin-UNETR version 2 (He et al., SwinUNETR-V2, MICCAI 2023), as MONAI has it, in the shape that nnU-Net builds."""

from monai.networks.nets import SwinUNETR  # type: ignore[attr-defined]  # its __init__ imports it without __all__
from torch import nn


class SwinUNETRV2(SwinUNETR):
    """MONAI's network under its own parameter names; it has one output, of full resolution.

    Args:
        input_channels: of an image, whose sides are multiples of 32.
        num_classes: outputs.
        deep_supervision: only False.
        feature_size: features of the first stage, a multiple of 12.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: deep supervision is asked for.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        feature_size: int = 48,
        spatial_dims: int = 3,
    ) -> None:
        if deep_supervision:
            raise ValueError(
                "SwinUNETRV2: expected deep_supervision False, got True; train it with auvtool or with nnU-Net's "
                "nnUNetTrainerNoDeepSupervision"
            )
        super().__init__(
            in_channels=input_channels,
            out_channels=num_classes,
            feature_size=feature_size,
            spatial_dims=spatial_dims,
            use_v2=True,
        )
        self.decoder = _NoDeepSupervision()


class _NoDeepSupervision(nn.Module):
    """What nnU-Net's trainer switches deep supervision on and off at; nothing listens."""

    deep_supervision = False
