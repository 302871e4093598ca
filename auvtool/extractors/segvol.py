"""SegVol: a vision transformer of whole CT volumes whose decoder is asked in words, and with boxes.

Du et al., SegVol: Universal and Interactive Volumetric Medical Image Segmentation (NeurIPS 2024; code and weights MIT).
The volume is seen once, as 32 x 256 x 256 of its voxels (`auvtool.extractors.segvol_grid`); the authors' second look
at a crop ("zoom-in") is left out, since its shape differs from class to class. The class map is the logits on that
grid, a row for each of its 32 slices whatever class; features are the 96 channels of 32 x 64 x 64 that masks are inner
products with. The image's features are those of the encoder's 2,048 tokens.

Prompts: for a class the text "A computerized tomography of a {name}.", which needs no label; with mask-box the same
text and the box around the class on the grid, as in the authors' own inference. Weights are in single precision, as
the authors run them. A predicted IoU is not reported: the decoder has the layers, but its training never reached them.

With --input mask the intensities are z-scores of the foreground, clipped to its percentiles. They go through the same
steps, which scale them to [0, 1] by their own percentiles.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from auvtool.checkpoint import load_strictly, read_weights
from auvtool.device import to_device, torch_device
from auvtool.errors import UsageError
from auvtool.extractors import Agreement, DecodedChannel, ModelInput, absent_channel
from auvtool.extractors.clip_tokens import ClipTokens
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.mask_overlap import agreement_of
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.segvol_grid import as_seen, box_around, coarser_region, model_grid
from auvtool.extractors.segvol_network import SegVolNetwork, SegVolSizes
from auvtool.extractors.weights import find_weights
from auvtool.spectrum import FeatureMoments

_SIZES = SegVolSizes()
_CLASSES_AT_ONCE = {"cpu": 1, "cuda": 8}


def load(options: ModelOptions, *, device: str) -> "SegVol":
    """The network in evaluation mode, with the vectors of the texts of all classes.

    Raises:
        UsageError: no weights are given, a text is too long, or the device is not there.
        InputError: the weights cannot be read or are of another network, or a package is missing.
    """
    target = torch_device(device)
    found = find_weights(EXTRACTORS["segvol"], options.weights)
    if found is None:
        raise ValueError("segvol has weights")
    texts = text_tokens(options.class_prompts)
    network = SegVolNetwork(_SIZES)
    load_strictly(
        network,
        network.own_names(read_weights(found.path, trust=options.trust_checkpoint)),
        found.path,
        expected="SegVol's weights",
    )
    network.eval().requires_grad_(requires_grad=False)
    vectors = {name: network.text_encoder(tokens).to(target) for name, tokens in texts.items()}
    del network.text_encoder  # a third of the weights, and no case needs them
    return SegVol(network.to(target), vectors, target)


def text_tokens(class_prompts: tuple[tuple[str, str], ...]) -> dict[str, list[int]]:
    """The tokens of the text for each class, by class name.

    Raises:
        UsageError: a text is too long.
        InputError: the package of CLIP's vocabulary is missing.
    """
    tokens_of = ClipTokens()
    texts = {name: tokens_of(f"A computerized tomography of a {prompt}.") for name, prompt in class_prompts if prompt}
    for name, tokens in texts.items():
        if len(tokens) > _SIZES.n_text_tokens:
            raise UsageError(
                f"--prompts: expected texts of at most {_SIZES.n_text_tokens} tokens, got {len(tokens)} for {name}; "
                "shorten it"
            )
    return texts


class SegVol:
    """The network, and the vector of the text for each class."""

    def __init__(self, network: SegVolNetwork, texts: dict[str, torch.Tensor], device: torch.device) -> None:
        self.network = network
        self.device = device
        self._texts = texts
        self._n_features = network.sizes.n_features

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`.

        Raises:
            ValueError: the image has no foreground.
        """
        if case.label is not None and not np.isin(case.label, [v for one in case.classes for v in one.labels]).any():
            yield from (absent_channel(self._n_features) for _ in case.classes)
            return
        volume = as_seen(case.image, case.geometry.affine)
        grid = model_grid(volume, self.network.sizes.image)
        embedding = self.encode(grid.image(volume))
        seen = _features_of_image(embedding)
        label = None if case.label is None else as_seen(case.label, case.geometry.affine)
        step = _CLASSES_AT_ONCE[self.device.type]
        for first in range(0, len(case.classes), step):
            group = case.classes[first : first + step]
            regions = [None if label is None else grid.region(label, one.labels) for one in group]
            there = [region is None or bool(region.any()) for region in regions]
            found = [(one.name, region) for one, region, known in zip(group, regions, there, strict=True) if known]
            boxes = [box_around(region) for _, region in found if region is not None and case.prompt == "mask-box"]
            decoded = self.decode_prompts(embedding, [name for name, _ in found], boxes)
            for region, known in zip(regions, there, strict=True):
                if known:
                    yield self._channel(*next(decoded), region, seen)
                else:
                    yield absent_channel(self._n_features)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> torch.Tensor:
        """The embedding (1, 768, 8, 16, 16) of an image in [0, 1] of the model's size."""
        return self.network.encode_image(to_device(image, self.device)[None, None])

    @torch.inference_mode()
    def decode_prompts(
        self, embedding: torch.Tensor, names: Sequence[str], boxes: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Logits (32, 256, 256) and upscaled embedding (96, 32, 64, 64) for the text of each class.

        Args:
            embedding: of the image.
            names: of the classes.
            boxes: one for each of them, or none.
        """
        if not names:
            return
        texts = torch.stack([self._texts[name] for name in names])
        corners = to_device(np.stack(boxes), self.device) if boxes else None
        logits, upscaled = self.network.decode(embedding, texts, corners)
        yield from zip(logits.cpu().numpy(), upscaled.cpu().numpy(), strict=True)

    def _channel(
        self, logits: np.ndarray, upscaled: np.ndarray, region: np.ndarray | None, seen: np.ndarray
    ) -> DecodedChannel:
        features = FeatureMoments(self._n_features)
        if region is None:
            features.add(upscaled.reshape(self._n_features, -1))
        else:
            d, h, w = upscaled.shape[1:]
            features.add(upscaled[:, coarser_region(region, (d, h, w))])
        agreement = Agreement() if region is None else agreement_of(logits > 0, region)
        return DecodedChannel(logits, np.arange(len(logits)), region, features, agreement, seen)


def _features_of_image(embedding: torch.Tensor) -> np.ndarray:
    """Mean, then standard deviation, of each channel of the embedding over its places."""
    spread, mean = torch.std_mean(embedding[0].double().flatten(1), dim=1, correction=0)
    found: np.ndarray = torch.cat([mean, spread]).cpu().numpy()
    return found
