"""A trained nnU-Net: its logits for each class, or the features that they are made of.

Any results folder will do, `auvtool train`'s or nnU-Net's own, of a configuration that stands alone, in 2D or 3D, and
of any network whose last layer is a 1 x 1 (x 1) convolution where `auvtool.backbones.final_layer` finds it.

A volume goes through nnU-Net's own preprocessing with all its channels and then, window by window, through the network
without that last convolution. Windows lie where nnU-Net lays them and weigh what nnU-Net's Gaussian says, but are
averaged in float32: nnU-Net's own average is in float16, where the Gaussian's tails lose their digits and logits at the
borders of a volume are off by 0.5 and more. The convolution is applied to the average, which is the same as averaging
logits. Nothing is mirrored, and the network runs in float32 on every device unless --amp says otherwise.

Maps stay on the network's grid, cropped and resampled, with their axes turned to those of the case. The map of a class
is its output as it is, before softmax or sigmoid; logits of a softmax network are determined but for one number a
voxel that all classes share, and what is computed here of probabilities is of the sigmoid of this one map. The class
region and the agreement are taken on that grid, the mask being where the class has the largest logit (of regions: a
positive one). Features are the maps before the last convolution; there are no image features.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from auvtool.backbones.final_layer import HOLDERS, final_layer, final_weight
from auvtool.dataset_json import SemanticClass, read_dataset_json, semantic_classes
from auvtool.device import to_device, torch_device
from auvtool.errors import InputError, UsageError, one_line
from auvtool.extractors import Agreement, DecodedChannel, ModelInput, absent_channel
from auvtool.extractors.facts import ExtractorFacts
from auvtool.extractors.mask_overlap import agreement_of
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.nnunet_grid import Preprocessing
from auvtool.extractors.stitching import evenly_spread_starts, stitch, zeros
from auvtool.nnunet_run import (
    DATASET_JSON,
    FINAL_CHECKPOINT,
    PLANS,
    RunNetwork,
    find_checkpoints,
    load_network,
    read_checkpoint,
)
from auvtool.slabs import slabs
from auvtool.spectrum import FeatureMoments

_HELD_BYTES = 1 << 30  # logit maps computed in one pass over the features
_WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 4}


def facts_of(facts: ExtractorFacts, options: ModelOptions) -> ExtractorFacts:
    """What the weights add: the classes that the network knows, its features, and the files that it is made of.

    Raises:
        UsageError: no weights are named.
        InputError: they are no results folder, or of a network whose last layer is not found.
    """
    run, path = _run_and_checkpoint(options.weights)
    weight = final_weight(read_checkpoint(path, trust=options.trust_checkpoint)["network_weights"])
    if weight is None:
        raise _other_architecture(path, "neither")
    n_features = int(weight.shape[1])
    names = tuple(one.name for one in _classes(run)[0])
    penultimate = options.feature == "penultimate"
    return replace(
        facts,
        n_features=n_features,
        # A feature belongs to no class.
        prompts=("none",) if penultimate else facts.prompts,
        channels_without_prompt=tuple(f"feature_{number}" for number in range(1, n_features + 1))
        if penultimate
        else names,
        class_names=names,
        weights_files=(path, run / PLANS, run / DATASET_JSON),
    )


def load(options: ModelOptions, *, device: str) -> "TrainedNnUNet":
    """The network of a results folder, in evaluation mode on `device`.

    Raises:
        UsageError: the device is not there, or the network needs a package that is not installed.
        InputError: see `facts_of` and `load_network`; or the plans name a reader that is not nnU-Net's.
    """
    run, path = _run_and_checkpoint(options.weights)
    where = torch_device(device)
    # nnU-Net talks while it builds a network, on standard output and by warnings.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load_network(run, [path], trust=options.trust_checkpoint)
    preprocessing = Preprocessing(loaded.plans, loaded.configuration, loaded.dataset_json)
    preprocessing.check_reader(run / PLANS)
    classes, has_regions = _classes(run)
    heads = {one.name: one.class_id - has_regions for one in classes}
    try:
        return TrainedNnUNet(loaded, preprocessing, heads, options, has_regions=has_regions, device=where)
    except ValueError as error:
        raise _other_architecture(path, one_line(error)) from error


class TrainedNnUNet:
    """A network without its last convolution, and that convolution.

    Args:
        loaded: the network.
        preprocessing: of its images.
        heads: number of the output of each class, by name.
        options: what is asked of it.
        has_regions: its outputs are regions, which may overlap.
        device: where it runs.

    Attributes:
        importance: weight of each voxel of a window; None: all alike.
    """

    def __init__(
        self,
        loaded: RunNetwork,
        preprocessing: Preprocessing,
        heads: dict[str, int],
        options: ModelOptions,
        *,
        has_regions: bool,
        device: torch.device,
    ) -> None:
        layers, last = final_layer(loaded.network)
        if set(last.kernel_size) != {1}:
            raise ValueError(f"expected a last convolution of one voxel, got a kernel of {tuple(last.kernel_size)}")
        self._weight = last.weight.detach().reshape(last.out_channels, last.in_channels).numpy().copy()
        self._bias = np.zeros(last.out_channels, np.float32) if last.bias is None else last.bias.detach().numpy().copy()
        layers[-1] = nn.Identity()
        self.network = loaded.network.eval().requires_grad_(requires_grad=False).to(device)
        self.n_channels = loaded.n_channels
        self.device = device
        patch = tuple(int(side) for side in loaded.configuration.patch_size)
        self._dimension = len(patch)
        self.window: tuple[int, ...] = (1,) * (3 - len(patch)) + patch
        self.importance: torch.Tensor | None = _gaussian(patch).reshape(self.window)
        self._preprocessing = preprocessing
        self._heads = heads
        self._prompts = dict(options.class_prompts)
        self._penultimate = options.feature == "penultimate"
        self._has_regions = has_regions

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`."""
        if len(case.channels) != self.n_channels:
            raise InputError(
                "the image",
                expected=f"{self.n_channels} channels, as the network was trained with",
                found=len(case.channels),
                cure="name a network of such images with --weights",
            )
        image, grid = self._preprocessing.run(case.channels, case.geometry)
        features = self.features(image)
        if case.label is None:
            everywhere = _moments(features, None)
            for one in self._maps(features, self._wanted(case.classes)):
                logits = np.ascontiguousarray(grid.as_slices(one))
                yield DecodedChannel(logits, np.arange(len(logits)), None, everywhere, Agreement(), np.empty(0))
            return
        label = grid.label(case.label)
        winners = None if self._has_regions else self._winners(features)
        heads = self._wanted(case.classes)
        for semantic_class, head, one in zip(case.classes, heads, self._maps(features, heads), strict=True):
            region = label.region(semantic_class.labels)
            if region is None:
                yield absent_channel(len(features))
                continue
            mask = one > 0 if winners is None else winners == head
            logits = np.ascontiguousarray(grid.as_slices(one))
            yield DecodedChannel(
                logits,
                np.arange(len(logits)),
                np.ascontiguousarray(grid.as_slices(region)),
                _moments(features, region),
                agreement_of(mask, region),
                np.empty(0),
            )

    def features(self, image: Float[np.ndarray, "channel d h w"]) -> Float[np.ndarray, "feature d h w"]:
        """What the last convolution gets to see of an image on the network's grid, averaged over windows."""
        return stitch(
            to_device(image, self.device),
            self._see,
            n_maps=self._weight.shape[1],
            window=(self.window[0], self.window[1], self.window[2]),
            starts=_starts,
            importance=self.importance,
            at_once=_WINDOWS_AT_ONCE["cuda" if self.device.type == "cuda" else "cpu"],
        )

    def logits(
        self, features: Float[np.ndarray, "feature d h w"], heads: Sequence[int] | slice = slice(None)
    ) -> Float[np.ndarray, "head d h w"]:
        """The last convolution applied to features."""
        weight, bias = self._weight[heads], self._bias[heads]
        maps = zeros((len(weight), *features.shape[1:]))
        for rows in slabs(features.shape[1:]):
            maps[:, rows] = np.tensordot(weight, features[:, rows], axes=1) + bias[:, None, None, None]
        return maps

    def _see(self, windows: torch.Tensor) -> torch.Tensor:
        if self._dimension == 3:
            seen: torch.Tensor = self.network(windows)
            return seen
        seen = self.network(windows[:, :, 0])
        return seen[:, :, None]

    def _wanted(self, classes: Sequence[SemanticClass]) -> list[int]:
        """Outputs to decode, for the classes of a case or without any for all of the network's."""
        if classes:
            return [self._heads[self._prompts.get(one.name, one.name)] for one in classes]
        return list(self._heads.values())

    def _maps(self, features: np.ndarray, heads: Sequence[int]) -> Iterator[np.ndarray]:
        if self._penultimate:
            yield from features
            return
        at_once = max(1, _HELD_BYTES // (4 * math.prod(features.shape[1:])))
        for first in range(0, len(heads), at_once):
            yield from self.logits(features, heads[first : first + at_once])

    def _winners(self, features: np.ndarray) -> np.ndarray:
        """The output that is largest at each voxel."""
        found = np.empty(features.shape[1:], dtype=np.int16)
        for rows in slabs(features.shape[1:]):
            found[rows] = self.logits(features[:, rows]).argmax(axis=0)
        return found


def _run_and_checkpoint(weights: Path | None) -> tuple[Path, Path]:
    """Results folder and checkpoint that --weights names: a checkpoint, or a folder, whose first finished fold it is.

    Raises:
        UsageError: nothing is named.
        InputError: it is no results folder, or has no checkpoint.
    """
    if weights is None:
        raise UsageError("--weights: expected a results folder of nnU-Net, or a checkpoint in one, got none; name one")
    if weights.is_dir():
        return weights, find_checkpoints(weights, name=FINAL_CHECKPOINT)[0]
    if not weights.exists():
        raise InputError(
            weights, expected="a results folder, or a checkpoint in one", found="none", cure="check --weights"
        )
    run = weights.absolute().parent.parent
    return run, find_checkpoints(run, name=weights.name, folds=[weights.absolute().parent.name.removeprefix("fold_")])[
        0
    ]


def _classes(run: Path) -> tuple[tuple[SemanticClass, ...], bool]:
    """The foreground classes of a results folder, and whether they are regions."""
    classes, _, has_regions = semantic_classes(read_dataset_json(run), run / DATASET_JSON)
    return classes, has_regions


def _other_architecture(path: Path, found: str) -> InputError:
    return InputError(
        path,
        expected=f"a network that ends in a 1 x 1 (x 1) convolution at {' or '.join(HOLDERS)}",
        found=found,
        cure="name a run of nnU-Net's U-Nets, of U-Mamba or of Swin-UNETR",
    )


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Where nnU-Net lays windows along an axis: a 2D network sees each slice once."""
    return list(range(length)) if window == 1 else evenly_spread_starts(length, window, overlap)


def _gaussian(patch: tuple[int, ...]) -> torch.Tensor:
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    weights: torch.Tensor = compute_gaussian(
        patch, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    )
    return weights


def _moments(features: np.ndarray, region: Bool[np.ndarray, "d h w"] | None) -> FeatureMoments:
    """Sums of all features over a region; None: everywhere."""
    moments = FeatureMoments(len(features))
    for rows in slabs(features.shape[1:]):
        if region is None:
            moments.add(features[:, rows].reshape(len(features), -1))
        elif region[rows].any():
            moments.add(features[:, rows][:, region[rows]])
    return moments
