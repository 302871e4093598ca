"""Networks to train beside those of nnU-Net's plans: a table from name to class, and what each of them needs.

nnU-Net builds the classes by their dotted path in the plans file, so that a checkpoint predicts with stock nnU-Net
wherever auvtool can be imported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypeAlias

from auvtool.errors import UsageError

BackboneName: TypeAlias = Literal["nnunet", "swin-unetr", "umamba", "umamba-enc"]

# Without the kernel of mamba_ssm a step over this many tokens takes 10 s for each case of the batch, on one thread
# (32 features; patch sides of 64 give this many).
MOST_TOKENS_WITHOUT_KERNEL = 2**18


@dataclass(frozen=True)
class Backbone:
    """A network that nnU-Net's plans can name.

    Attributes:
        network_class_name: dotted path of its class.
        has_deep_supervision: whether it gives logits of lower resolutions too.
        package: what it needs beside auvtool's dependencies; "" for nothing.
        scans_voxels: whether every voxel of the patch is a token of a sequence.
    """

    network_class_name: str
    has_deep_supervision: bool = True
    package: str = ""
    scans_voxels: bool = False


BACKBONES: dict[BackboneName, Backbone] = {
    "swin-unetr": Backbone("auvtool.backbones.swin_unetr.SwinUNETRV2", has_deep_supervision=False, package="monai"),
    "umamba": Backbone("auvtool.backbones.umamba.UMambaBot"),
    "umamba-enc": Backbone("auvtool.backbones.umamba.UMambaEnc", scans_voxels=True),
}


def has_deep_supervision(name: BackboneName) -> bool:
    """Whether the loss gets outputs of several resolutions; nnU-Net's own networks give them."""
    return name not in BACKBONES or BACKBONES[name].has_deep_supervision


def require_package(network_class_name: str) -> None:
    """Raise if the network of a plans file needs a package that is not installed.

    Raises:
        UsageError: as said.
    """
    for name, backbone in BACKBONES.items():
        if backbone.network_class_name == network_class_name and backbone.package and not find_spec(backbone.package):
            raise UsageError(
                f"the backbone {name}: expected the package {backbone.package}, got none; "
                f"pip install 'auvtool[{backbone.package}]'"
            )


def require_scan(name: BackboneName, *, patch_size: Sequence[int], device: str) -> None:
    """Raise if training would spend its time in a scan without a kernel.

    Raises:
        UsageError: more tokens than `MOST_TOKENS_WITHOUT_KERNEL`, and no mamba_ssm on a GPU.
    """
    if name not in BACKBONES or not BACKBONES[name].scans_voxels:
        return
    n_tokens = math.prod(patch_size)
    has_kernel = device.startswith("cuda") and find_spec("mamba_ssm") is not None
    if n_tokens > MOST_TOKENS_WITHOUT_KERNEL and not has_kernel:
        raise UsageError(
            f"--backbone {name}: expected mamba_ssm on a CUDA device, or a patch of at most "
            f"{MOST_TOKENS_WITHOUT_KERNEL} voxels (some 10 s a case and step without it), got {n_tokens} voxels on "
            f"{device}{'' if find_spec('mamba_ssm') else ' and no mamba_ssm'}; pip install mamba-ssm and add --device "
            "cuda, take --backbone umamba, or lower --patch-size"
        )
