"""The CLIP-Driven Universal Model: 32 organs and tumours of CT by their names, from windows of the volume.

The volume is turned to RAS and resampled to cubes of 1.5 mm, -175 to 250 HU become 0 to 1, and the box around what is
above 0 goes through the network in windows of 96^3, half overlapping, averaged with Gaussian weights, as the authors do
it. With mask-normalised input, whose intensities are no longer HU, the least and greatest intensity take the place of
the window: the 0.5 and 99.5 percentiles of the foreground.

Prompts: the name of a class, or of the organ that --prompts gives it; only the organs asked for are decoded. Without
prompts all 32 are. Maps lie on the model's grid, with their axes in the order of the volume's. Their features are the
8 maps from which the head makes the logits of every organ. How a mask fits the label is counted on the model's grid.

Code and weights of the authors are CC BY-NC-ND 4.0. Nothing of their code is here, and no weights are: whoever has them
names the checkpoint. `auvtool.extractors.universal_model` has the network.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Num

from auvtool.arrays import LabelMap
from auvtool.checkpoint import load_strictly, read_weights
from auvtool.dataset_json import SemanticClass
from auvtool.device import to_device, torch_device
from auvtool.errors import InputError, UsageError
from auvtool.extractors import Agreement, DecodedChannel, ModelInput, absent_channel
from auvtool.extractors.clip_driven_organs import ORGANS
from auvtool.extractors.encoder_features import EncoderFeatures
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.mask_overlap import agreement_of
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.ras_grid import RasGrid, ras_grid
from auvtool.extractors.stitching import gaussian_importance, regular_starts, stitch
from auvtool.extractors.weights import find_weights
from auvtool.spectrum import FeatureMoments

if TYPE_CHECKING:
    from auvtool.extractors.universal_model import UniversalModel

_FACTS = EXTRACTORS["clip-driven"]
_SPACING_MM = 1.5
_LOW_HU, _HIGH_HU = -175.0, 250.0
_WINDOW = (96, 96, 96)
_WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 4}
_HEAD = ("precls_conv.", "GAP.", "controller.", "text_to_vision.", "organ_embedding")


def load(options: ModelOptions, *, device: str) -> "ClipDriven":
    """The network in evaluation mode.

    Raises:
        UsageError: no weights are named, the device is not there, or MONAI is not installed.
        InputError: the weights are damaged, of another network, or of the U-Net variant.
    """
    where = torch_device(device)
    found = find_weights(_FACTS, options.weights)
    if found is None:
        raise ValueError("clip-driven needs weights")
    if find_spec("monai") is None:
        raise UsageError("clip-driven: expected the package monai, got none; pip install 'auvtool[monai]'")
    from auvtool.extractors.universal_model import UniversalModel

    state = names_of_ours(read_weights(found.path, trust=options.trust_checkpoint), found.path)
    network = UniversalModel()
    load_strictly(network, state, found.path, expected="weights of the Universal Model with a Swin-UNETR")
    network.eval().requires_grad_(requires_grad=False)
    return ClipDriven(network.to(where), dict(options.class_prompts), where)


def names_of_ours(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Weights under our names: the authors' stand under "module.", those of a Swin-UNETR without "backbone.".

    Raises:
        InputError: they are of the U-Net variant.
    """
    bare = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.removeprefix("backbone.").startswith("down_tr") for name in bare):
        raise InputError(
            path,
            expected="weights of the Universal Model with a Swin-UNETR",
            found="those with a U-Net",
            cure="name the checkpoint of the Swin-UNETR",
        )
    return {
        name if name.startswith((*_HEAD, "backbone.")) else f"backbone.{name}": tensor for name, tensor in bare.items()
    }


class ClipDriven:
    """The network with what its classes are asked for."""

    def __init__(self, network: "UniversalModel", prompts: Mapping[str, str], device: torch.device) -> None:
        self.network = network
        self.prompts = prompts
        self.device = device

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`."""
        grid = ras_grid(case.geometry, _SPACING_MM)
        volume = model_intensities(grid.resampled(case.image, order=1), normalised=case.normalised)
        box = foreground_box(volume)
        if case.label is None:
            yield from self._decode_everywhere(case, grid, volume[box])
            return
        region_of = partial(
            _region, label=case.label, nearest=grid.resampled(case.label, order=0)[box], grid=grid, box=box
        )
        # Two classes may be parts of one organ. Regions are made again later: together they would fill the memory.
        organs = sorted({self._organ(one.name) for one in case.classes if region_of(one) is not None})
        maps, seen = self._maps(volume[box], organs) if organs else (np.empty(0), np.empty(0))
        for one in case.classes:
            region = region_of(one)
            if region is None:
                yield absent_channel(_FACTS.n_features)
                continue
            logits = maps[_FACTS.n_features + organs.index(self._organ(one.name))]
            features = FeatureMoments(_FACTS.n_features)
            features.add(np.stack([one_map[region] for one_map in maps[: _FACTS.n_features]]))
            turned = grid.in_order_of_volume(logits)
            yield DecodedChannel(
                turned,
                np.arange(len(turned)),
                grid.in_order_of_volume(region),
                features,
                agreement_of(logits > 0, region),
                seen,
            )

    def _decode_everywhere(
        self, case: ModelInput, grid: RasGrid, volume: Float[np.ndarray, "r a s"]
    ) -> Iterator[DecodedChannel]:
        """Without a label: the organs that the classes name, or all of them."""
        asked = [self._organ(one.name) for one in case.classes] or list(range(len(ORGANS)))
        organs = sorted(set(asked))
        maps, seen = self._maps(volume, organs)
        features = FeatureMoments(_FACTS.n_features)
        for row in range(maps.shape[1]):  # they may lie on a disk
            features.add(np.asarray(maps[: _FACTS.n_features, row]).reshape(_FACTS.n_features, -1))
        for organ in asked:
            turned = grid.in_order_of_volume(maps[_FACTS.n_features + organs.index(organ)])
            yield DecodedChannel(turned, np.arange(len(turned)), None, features, Agreement(), seen)

    def _organ(self, class_name: str) -> int:
        return ORGANS.index(self.prompts[class_name])

    def _maps(
        self, volume: Float[np.ndarray, "r a s"], organs: list[int]
    ) -> tuple[Float[np.ndarray, "map r a s"], Float[np.ndarray, " feature"]]:
        """The 8 maps before the head, then the logits of `organs`; mean and deviation of the encoder's features."""
        encoded = EncoderFeatures()

        def predict(windows: torch.Tensor) -> torch.Tensor:
            maps, bottleneck = self.network(windows, organs)
            encoded.add(bottleneck)
            decoded: torch.Tensor = maps
            return decoded

        maps = stitch(
            to_device(volume[None], self.device),
            predict,
            n_maps=_FACTS.n_features + len(organs),
            window=_WINDOW,
            starts=regular_starts,
            importance=gaussian_importance(_WINDOW),
            at_once=_WINDOWS_AT_ONCE[self.device.type],
        )
        return maps, encoded.summary()


def model_intensities(volume: Float[np.ndarray, "r a s"], *, normalised: bool) -> Float[np.ndarray, "r a s"]:
    """Intensities in [0, 1]: of the window in HU, or between the extremes of a normalised volume, zeros if flat."""
    low, high = (float(volume.min()), float(volume.max())) if normalised else (_LOW_HU, _HIGH_HU)
    scaled: np.ndarray = (np.clip(volume, low, high) - low) / max(high - low, np.finfo(np.float32).tiny)
    return scaled.astype(np.float32, copy=False)


def foreground_box(volume: Float[np.ndarray, "r a s"]) -> tuple[slice, ...]:
    """The box around what is above 0; the whole volume where nothing is."""
    above = volume > 0
    sides = [np.flatnonzero(above.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(None) for side in sides)


def _region(
    one: SemanticClass, *, label: LabelMap, nearest: Num[np.ndarray, "r a s"], grid: RasGrid, box: tuple[slice, ...]
) -> Bool[np.ndarray, "r a s"] | None:
    """Where a class lies in the box of the model's grid; None where the label or the box lacks it.

    Args:
        one: the class.
        label: of the case.
        nearest: the label in the box.
        grid: the model's.
        box: of the grid.
    """
    region: np.ndarray = np.isin(nearest, one.labels)
    if not region.any():  # a structure thinner than the grid keeps the cubes that it touches
        region = grid.touched(np.isin(label, one.labels))[box]
    return region if region.any() else None
