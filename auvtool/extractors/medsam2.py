"""MedSAM2: SAM2.1's prompted decoder and memory on a Hiera tiny encoder, trained on medical scans.

The network is transformers' (extra `models`), the weights are an official checkpoint. Slices become squares of 512
(`auvtool.extractors.medsam2_images`); the low-resolution logits (128 x 128) are the class map, on a grid whose pixels
are not square where the slice is not.

Prompts: for a class the box around it on each slice, from the label; where that mask is not stable, SAM2 takes the
best of three others, as its authors' predictor does. Without prompts the empty prompt (a padding point); the map's
channels are then the 32 channels of the decoder's upscaled embedding, with which every mask is an inner product.

With `propagate` a class is prompted on the slice where it is largest, among those chosen, and followed from there to
the first and the last of them, over every slice between (`auvtool.extractors.medsam2_tracking`). The rows of its map
are the chosen slices that carry it, as without, so that the two compare. The looser box is followed too. The authors
keep the largest component of the mask and fill small holes; maps are measured without either. On a GPU they run it
in bfloat16, which is `amp` here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from auvtool.device import to_device, torch_device
from auvtool.extractors import DecodedChannel, ModelInput, absent_channel
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.medsam2_images import grey_scale, model_images
from auvtool.extractors.medsam2_network import load_network
from auvtool.extractors.medsam2_tracking import SliceFeatures, Tracker
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

IMAGE_SIZE = 512
_FACTS = EXTRACTORS["medsam2"]
_STRIDES = (4, 8, 16)  # of the three feature maps that the decoder gets
_CHANNELS = (32, 64, 256)
_SLICES_AT_ONCE = {"cpu": 1, "cuda": 16}
_BOXES_AT_ONCE = {"cpu": 4, "cuda": 32}
_REMEMBERED = 32  # slices, 4 MiB each
_CHANNEL_MAP_BYTES = 1 << 30  # maps held at once without prompts


def load(options: ModelOptions, *, device: str) -> "MedSam2":
    """The network in evaluation mode.

    Raises:
        UsageError: the device is not there, or no weights are named.
        InputError: the weights are missing, damaged or of another network; or transformers is missing or broken.
    """
    on_device = torch_device(device)
    found = find_weights(_FACTS, options.weights)
    if found is None:
        raise ValueError("medsam2 has weights")
    network = load_network(
        found.path, image_size=IMAGE_SIZE, tracking=options.propagate, trust=options.trust_checkpoint
    )
    return MedSam2(network, on_device, window=options.window, propagate=options.propagate)


@dataclass(frozen=True)
class EncodedSlices:
    """What the encoder makes of some slices.

    Attributes:
        numbers: of the slices, ascending.
        maps: three feature maps (slice, channel, h, w); where they take gigabytes, in a file that vanishes.
        positions: encodings of the places of each map (1, channel, h, w), the same for all slices.
    """

    numbers: np.ndarray
    maps: tuple[np.ndarray, ...]
    positions: tuple[torch.Tensor, ...]

    def of(self, numbers: np.ndarray, device: torch.device) -> list[torch.Tensor]:
        """The feature maps of some of the slices, on a device."""
        rows = np.searchsorted(self.numbers, numbers)
        return [to_device(one[rows], device) for one in self.maps]


class MedSam2:
    """The network with what is the same for every slice."""

    def __init__(
        self, network: Any, device: torch.device, *, window: tuple[float, float] | None, propagate: bool
    ) -> None:
        self.network = network.to(device)
        self.device = device
        self._kind = "cuda" if device.type == "cuda" else "cpu"
        self._window = window
        self._size = int(network.config.prompt_encoder_config.image_size)
        self._grid = (self._size // _STRIDES[0],) * 2
        self._tracker = Tracker(network, device) if propagate else None
        self._encoded: SliceMemory[tuple[np.ndarray, ...]] = SliceMemory(_REMEMBERED)
        self._positions: tuple[torch.Tensor, ...] = ()
        self._upscaled = torch.empty(0)
        network.mask_decoder.activation.register_forward_hook(self._keep_upscaled)

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`."""
        if case.label is None:
            yield from self._decode_unprompted(case)
        else:
            yield from self._decode_classes(case, case.label)

    @torch.inference_mode()
    def encode(self, case: ModelInput, numbers: np.ndarray) -> EncodedSlices:
        """Feature maps of some slices of a case, as the decoder gets them but for the embedding of no memory."""
        scale = grey_scale(case, self._window)
        sides = [self._size // stride for stride in _STRIDES]
        maps = tuple(zeros((len(numbers), n, side, side)) for n, side in zip(_CHANNELS, sides, strict=True))
        keys, new = [slice_key(scale.grey(case.image[number])) for number in numbers], []
        for row, key in enumerate(keys):
            known = self._encoded.get(key)
            if known is None:
                new.append(row)
                continue
            for held, one in zip(maps, known, strict=True):
                held[row] = one
        for start in range(0, len(new), _SLICES_AT_ONCE[self._kind]):
            rows = new[start : start + _SLICES_AT_ONCE[self._kind]]
            images = model_images(scale.grey(case.image[numbers[rows]]), self._size).to(self.device)
            seen = self.network.vision_encoder(images)
            decoder, (finest, finer, coarse) = self.network.mask_decoder, seen.fpn_hidden_states
            found = (decoder.conv_s0(finest), decoder.conv_s1(finer), coarse)
            for held, made in zip(maps, found, strict=True):
                held[rows] = made.float().cpu().numpy()
            self._positions = tuple(one[:1].float() for one in seen.fpn_position_encoding)
        self._encoded.keep((keys[row], tuple(np.array(held[row]) for held in maps)) for row in new)
        return EncodedSlices(numbers, maps, self._positions)

    @torch.inference_mode()
    def decode_prompts(
        self, maps: list[torch.Tensor], boxes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode a batch of slices, each with its box (x0, y0, x1, y1) in pixels of the input, or with no prompt.

        Returns:
            Logits (slice, h, w), upscaled embedding (slice, 32, h, w), predicted IoU (slice).
        """
        *finer, coarse = maps
        found = self.network(
            image_embeddings=[*finer, coarse + self.network.no_memory_embedding.view(1, -1, 1, 1)],
            input_boxes=None if boxes is None else boxes[:, None].clone(),  # transformers 4 moves them in place
            multimask_output=False,
        )
        return found.pred_masks[:, 0, 0].float(), self._upscaled.float(), found.iou_scores[:, 0, 0].float()

    @torch.inference_mode()
    def _decode_classes(self, case: ModelInput, label: np.ndarray) -> Iterator[DecodedChannel]:
        values = {int(number): set(np.unique(label[number]).tolist()) for number in case.slices}
        carrying = {
            one: np.array([n for n, there in values.items() if there.intersection(one.labels)], dtype=np.int64)
            for one in case.classes
        }
        used = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *carrying.values()]))
        wanted = used
        if self._tracker is not None:
            between = [np.arange(own[0], own[-1] + 1) for own in carrying.values() if len(own)]
            wanted = np.unique(np.concatenate([used, *between]))
        encoded = self.encode(case, wanted)
        seen = _features_of_image(encoded, used)
        for semantic_class, numbers in carrying.items():
            if not len(numbers):
                yield absent_channel(_FACTS.n_features)
                continue
            mask = np.isin(label[numbers], semantic_class.labels)
            masks = ClassMasks(mask, numbers, region_on_grid(mask, self._grid), _FACTS.n_features)
            if self._tracker is None:
                self._prompt_each(masks, mask, numbers, encoded)
            else:
                self._follow(masks, mask, numbers, encoded, n_slices=len(label), tracker=self._tracker)
            yield masks.channel(seen)

    def _prompt_each(self, masks: ClassMasks, mask: np.ndarray, numbers: np.ndarray, encoded: EncodedSlices) -> None:
        """Every slice with its own box."""
        tight = self._boxes(mask)
        for start in range(0, len(numbers), _BOXES_AT_ONCE[self._kind]):
            rows = slice(start, start + _BOXES_AT_ONCE[self._kind])
            maps = encoded.of(numbers[rows], self.device)
            logits, upscaled, predicted_iou = self.decode_prompts(maps, self._tensor(tight[rows]))
            masks.add(rows, logits, upscaled, predicted_iou)
            around, _, _ = self.decode_prompts(maps, self._tensor(self._loosened(tight[rows])))
            masks.add_loose(rows, around)

    def _follow(
        self,
        masks: ClassMasks,
        mask: np.ndarray,
        numbers: np.ndarray,
        encoded: EncodedSlices,
        *,
        n_slices: int,
        tracker: Tracker,
    ) -> None:
        """The slice where the class is largest with its box, the others from memory."""
        row_of = {int(number): row for row, number in enumerate(numbers)}
        largest = int(mask.sum(axis=(1, 2)).argmax())
        tight = self._boxes(mask[largest : largest + 1])

        def features(number: int) -> SliceFeatures:
            return SliceFeatures(tuple(encoded.of(np.array([number]), self.device)), encoded.positions)

        key, ends = int(numbers[largest]), (int(numbers[0]), int(numbers[-1]))
        for box, is_tight in ((tight, True), (self._loosened(tight), False)):
            followed = tracker.follow(features, key=key, box=self._tensor(box), ends=ends, n_slices=n_slices)
            for found in followed:
                if found.number not in row_of:
                    continue
                row = row_of[found.number]
                rows = slice(row, row + 1)
                if is_tight:
                    masks.add(rows, found.logits, found.upscaled, found.predicted_iou)
                else:
                    masks.add_loose(rows, found.logits)

    @torch.inference_mode()
    def _decode_unprompted(self, case: ModelInput) -> Iterator[DecodedChannel]:
        encoded = self.encode(case, case.slices)

        def decode(rows: slice) -> torch.Tensor:
            return self.decode_prompts(encoded.of(case.slices[rows], self.device), None)[1]

        yield from unprompted_channels(
            case.slices,
            decode,
            grid=self._grid,
            n_channels=_FACTS.n_features,
            at_once=_BOXES_AT_ONCE[self._kind],
            held_bytes=_CHANNEL_MAP_BYTES,
            image_features=_features_of_image(encoded, case.slices),
        )

    def _boxes(self, mask: np.ndarray) -> np.ndarray:
        _, height, width = mask.shape
        return boxes_on_grid(mask, np.array([self._size / width, self._size / height]))

    def _loosened(self, boxes: np.ndarray) -> np.ndarray:
        return loosened(boxes, self._size, self._size)

    def _tensor(self, boxes: np.ndarray) -> torch.Tensor:
        return to_device(boxes, self.device)

    def _keep_upscaled(self, module: object, arguments: object, output: torch.Tensor) -> None:
        self._upscaled = output


def _features_of_image(encoded: EncodedSlices, numbers: np.ndarray) -> np.ndarray:
    """Mean, then standard deviation, of each channel of the coarsest feature map over places and some slices."""
    coarse = encoded.maps[-1]
    if not len(numbers):
        return np.full(2 * coarse.shape[1], np.nan)
    means, variances = [], []
    for row in np.searchsorted(encoded.numbers, numbers):  # one after the other: they may lie on a disk
        own = coarse[row].astype(np.float64)
        means.append(own.mean(axis=(1, 2)))
        variances.append(own.var(axis=(1, 2)))
    spread = np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))
    return np.concatenate([np.mean(means, axis=0), spread])
