"""anatomix: 16 features of each voxel that should not depend on how a scan was made; no labels, no prompts.

Dey et al., Learning General-Purpose Biomedical Volume Representations using Randomized Synthesis, ICLR 2025 (arXiv
2411.02372). A 3D U-Net, trained on synthetic volumes only. As the authors extract its features, the volume stays on its
own grid, its extremes (of the --window where one is given; they take -450 to 450 HU for CT) become 0 and 1, and windows
of 128^3 are averaged with Gaussian weights of a quarter of a side. Neighbours overlap by half; the authors take 0.8,
which costs fifteen times as much in a large volume.

The network is written anew, with the names of the authors' checkpoint; weights are named by --weights.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from auvtool.arrays import Volume
from auvtool.checkpoint import load_strictly, read_weights
from auvtool.device import to_device, torch_device
from auvtool.extractors import Agreement, DecodedChannel, ModelInput
from auvtool.extractors.encoder_features import EncoderFeatures
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.stitching import gaussian_importance, regular_starts, stitch
from auvtool.extractors.weights import find_weights
from auvtool.spectrum import FeatureMoments

_FACTS = EXTRACTORS["anatomix"]
_WIDTH, _DEPTH = 16, 4
_WINDOW = (128, 128, 128)
_GAUSSIAN_WIDTH = 0.25
_OVERLAP = 0.5
_WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 2}
_COMPILED = "_orig_mod."  # before each name where the authors saved a compiled network


def load(options: ModelOptions, *, device: str) -> "Anatomix":
    """The network in evaluation mode.

    Raises:
        UsageError: no weights are named, or the device is not there.
        InputError: the weights are damaged or of another network.
    """
    where = torch_device(device)
    found = find_weights(_FACTS, options.weights)
    if found is None:
        raise ValueError("anatomix needs weights")
    state = read_weights(found.path, trust=options.trust_checkpoint)
    network = AnatomixUNet()
    load_strictly(
        network,
        {name.removeprefix(_COMPILED): tensor for name, tensor in state.items()},
        found.path,
        expected="weights of anatomix (16 features, not anatomix-dev)",
    )
    network.eval().requires_grad_(requires_grad=False)
    return Anatomix(network.to(where), options.window, where)


class AnatomixUNet(nn.Module):
    """Four halvings by maxima, two convolutions with batch norm a level; sides of its input are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        skips: list[int] = []  # layers whose output waits for the level's way up
        joins: list[int] = []  # layers whose output it is joined to

        def add(n_in: int, n_out: int) -> None:
            layers.extend((_convolution(n_in, n_out), nn.BatchNorm3d(n_out), nn.ReLU(inplace=True)))

        add(1, _WIDTH)
        widths = [_WIDTH * 2**level for level in range(_DEPTH)]
        for above, width in zip([_WIDTH, *widths], widths, strict=False):
            add(above, width)
            add(width, width)
            skips.append(len(layers) - 1)
            layers.append(nn.MaxPool3d(2))
        add(widths[-1], 2 * widths[-1])
        add(2 * widths[-1], 2 * widths[-1])
        self._bottleneck = len(layers) - 1
        for width in reversed(widths):
            joins.append(len(layers))
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            add(3 * width, width)
            add(width, width)
        layers.append(_convolution(_WIDTH, _FACTS.n_features))
        self.model = nn.Sequential(*layers)
        self._skips, self._joins = frozenset(skips), frozenset(joins)

    def forward(
        self, windows: Float[torch.Tensor, "window 1 d h w"]
    ) -> tuple[Float[torch.Tensor, "window 16 d h w"], Float[torch.Tensor, "window 256 d2 h2 w2"]]:
        """The features of each voxel, and the bottleneck."""
        waiting: list[torch.Tensor] = []
        maps = bottleneck = windows
        for index, layer in enumerate(self.model):
            maps = layer(maps)
            if index in self._skips:
                waiting.append(maps)
            elif index in self._joins:
                maps = torch.cat((waiting.pop(), maps), dim=1)
            elif index == self._bottleneck:
                bottleneck = maps
        return maps, bottleneck


def _convolution(n_in: int, n_out: int) -> nn.Conv3d:
    return nn.Conv3d(n_in, n_out, 3, padding="same", padding_mode="reflect", bias=False)


class Anatomix:
    """The network, and the intensities between which it sees a volume."""

    def __init__(self, network: AnatomixUNet, window: tuple[float, float] | None, device: torch.device) -> None:
        self.network = network
        self.window = window
        self.device = device

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`."""
        encoded = EncoderFeatures()

        def predict(windows: torch.Tensor) -> torch.Tensor:
            maps, bottleneck = self.network(windows)
            encoded.add(bottleneck)
            decoded: torch.Tensor = maps
            return decoded

        maps = stitch(
            to_device(scaled(case.image, self.window)[None], self.device),
            predict,
            n_maps=_FACTS.n_features,
            window=_WINDOW,
            starts=regular_starts,
            importance=gaussian_importance(_WINDOW, width=_GAUSSIAN_WIDTH),
            overlap=_OVERLAP,
            at_once=_WINDOWS_AT_ONCE[self.device.type],
        )
        features = FeatureMoments(_FACTS.n_features)
        for row in range(maps.shape[1]):  # they may lie on a disk
            features.add(np.asarray(maps[:, row]).reshape(_FACTS.n_features, -1))
        for one in maps:
            rows = np.arange(len(one))
            yield DecodedChannel(np.array(one), rows, None, features, Agreement(), encoded.summary())


def scaled(image: Volume, window: tuple[float, float] | None) -> Volume:
    """Intensities clipped to the window, if there is one, with their extremes at 0 and 1; zeros if they are flat."""
    clipped = image if window is None else np.clip(image, *window)
    low, high = float(clipped.min()), float(clipped.max())
    if high == low:
        return np.zeros(image.shape, dtype=np.float32)
    found: Volume = ((clipped - low) / (high - low)).astype(np.float32, copy=False)
    return found
