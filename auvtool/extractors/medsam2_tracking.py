"""A class followed through a volume as MedSAM2 does: prompted on one slice, then slice after slice with a memory.

transformers runs the network and keeps the memory. Its masks of slices where the network sees no object are a constant
(-1024), which would rule every spectrum: what the decoder drew is taken instead. The memory gets the constant, as the
authors have it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

_OBJECT = 1
_CORNERS = (2, 3)  # labels of the points that are a box's first and last corner


@dataclass(frozen=True)
class SliceFeatures:
    """What the encoder makes of a slice: its three feature maps (1, channel, h, w), and the positions' encodings."""

    maps: tuple[torch.Tensor, ...]
    positions: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class TrackedSlice:
    """A slice's mask as the decoder drew it.

    Attributes:
        number: of the slice.
        logits: (1, h, w), those with the highest predicted IoU.
        upscaled: last decoded layer (1, channel, h, w).
        predicted_iou: (1).
    """

    number: int
    logits: torch.Tensor
    upscaled: torch.Tensor
    predicted_iou: torch.Tensor


class Tracker:
    """Sam2VideoModel, and what its decoder gave last."""

    def __init__(self, network: Any, device: torch.device) -> None:
        self._network, self._device = network, device
        self._decoded: tuple[torch.Tensor, ...] = ()
        self._upscaled = torch.empty(0)
        network.mask_decoder.register_forward_hook(self._keep_decoded)
        network.mask_decoder.activation.register_forward_hook(self._keep_upscaled)

    def follow(
        self,
        features: Callable[[int], SliceFeatures],
        *,
        key: int,
        box: torch.Tensor,
        ends: tuple[int, int],
        n_slices: int,
    ) -> Iterator[TrackedSlice]:
        """The slice `key` from its box alone, then the slices after it up to the last, then those before it.

        Both ways start from `key` with no other memory, as the authors' reset between them does.

        Args:
            features: of a slice by its number.
            key: the slice with the prompt.
            box: (x0, y0, x1, y1) in pixels of the model's input.
            ends: first and last slice.
            n_slices: of the volume: the memory's sense of time is relative to it.
        """
        session = self._session(n_slices)
        index = session.obj_id_to_idx(_OBJECT)
        labels = torch.tensor([[_CORNERS]], dtype=torch.int32)
        session.add_point_inputs(index, key, {"point_coords": box.view(1, 1, 2, 2), "point_labels": labels})
        session.obj_with_new_inputs = [_OBJECT]
        yield self._one(session, key, features, reverse=False)
        outputs = session.output_dict_per_obj[index]
        outputs["cond_frame_outputs"][key].pop("high_res_masks", None)
        first, last = ends
        for numbers, reverse in ((range(key + 1, last + 1), False), (range(key - 1, first - 1, -1), True)):
            tracked = outputs["non_cond_frame_outputs"]
            tracked.clear()
            for number in numbers:
                yield self._one(session, number, features, reverse=reverse)
                tracked[number].pop("high_res_masks", None)
                if len(tracked) >= self._network.config.max_object_pointers_in_encoder:
                    del tracked[next(iter(tracked))]  # the oldest: no slice to come looks back to it

    def _session(self, n_slices: int) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        session = Sam2VideoInferenceSession(
            inference_device=self._device, inference_state_device=self._device, dtype=torch.float32
        )
        # Slices are encoded already: of the volume only its length is asked.
        session.processed_frames = dict.fromkeys(range(n_slices))
        return session

    def _one(
        self, session: Any, number: int, features: Callable[[int], SliceFeatures], *, reverse: bool
    ) -> TrackedSlice:
        found = features(number)
        session.cache.clear_all()
        session.cache.cache_vision_features(
            number,
            {
                "vision_feats": [_flat(one) for one in found.maps],
                "vision_pos_embeds": [_flat(one) for one in found.positions],
            },
        )
        self._network(session, frame_idx=number, reverse=reverse)
        masks, predicted_ious, *_ = self._decoded
        best = int(predicted_ious[0, 0].argmax())
        return TrackedSlice(
            number, masks[0, 0, best][None].float(), self._upscaled.float(), predicted_ious[0, 0, best][None].float()
        )

    def _keep_decoded(self, module: object, arguments: object, output: tuple[torch.Tensor, ...]) -> None:
        self._decoded = output

    def _keep_upscaled(self, module: object, arguments: object, output: torch.Tensor) -> None:
        self._upscaled = output


def _flat(features: torch.Tensor) -> torch.Tensor:
    """(1, channel, h, w) as (place, 1, channel)."""
    return features.flatten(2).permute(2, 0, 1)
