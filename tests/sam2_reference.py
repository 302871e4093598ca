"""SAM2 as its authors publish it (PyPI rf-sam-2), as MedSAM2 sets it up: the oracle of the extractor medsam2."""

import warnings
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

SIZE = 128  # of the network in tests: no weight depends on it, and 512 would take minutes
ABSENT, MIXED, PRESENT = 0.0, 1.05, 3.0  # what the random network thinks of an object on most slices


def build_reference(size: int) -> torch.nn.Module:
    """SAM2.1 Hiera tiny at `size` x `size` with its video predictor's settings; MedSAM2's differ in no other value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sam2  # noqa: F401  # registers the configurations
        from hydra import compose
        from hydra.utils import instantiate

        side = size // 16
        configuration = compose(
            "configs/sam2.1/sam2.1_hiera_t.yaml",
            overrides=[
                "++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor",
                f"model.image_size={size}",
                f"model.memory_attention.layer.self_attention.feat_sizes=[{side},{side}]",
                f"model.memory_attention.layer.cross_attention.feat_sizes=[{side},{side}]",
                "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
                "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
                "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
                "++model.binarize_mask_from_pts_for_mem_enc=true",
            ],
        )
        return instantiate(configuration.model, _recursive_=True).eval()


def random_state(network: torch.nn.Module, *, object_score: float, seed: int = 1) -> dict[str, torch.Tensor]:
    """Weights of every name that keep activations near one; `object_score` shifts how sure it is of an object."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 1 and name.endswith("weight"):
            state[name] = 1 + 0.1 * drawn
        elif tensor.ndim > 1 and "embed" not in name and not name.endswith("enc"):
            state[name] = drawn * tensor[0].numel() ** -0.5
        else:
            state[name] = 0.2 * drawn
    state["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += object_score
    return state


@dataclass(frozen=True)
class ReferenceMask:
    """What the reference's decoder drew, and the mask that its predictor makes of that."""

    logits: np.ndarray
    upscaled: np.ndarray
    predicted_iou: float
    object_score: float
    published: np.ndarray


@torch.inference_mode()
def decode(network: torch.nn.Module, images: torch.Tensor, boxes: torch.Tensor | None) -> list[ReferenceMask]:
    """Each image alone with its box, or with the empty prompt."""
    found = []
    for index, image in enumerate(images):
        maps = network.forward_image(image[None])["backbone_fpn"]
        points = None
        if boxes is not None:
            labels = torch.tensor([[2, 3]], dtype=torch.int32)
            points = {"point_coords": boxes[index].view(1, 2, 2), "point_labels": labels}
        with _Decoder(network) as decoder:
            published = network._forward_sam_heads(
                maps[-1] + network.no_mem_embed.view(1, -1, 1, 1),
                point_inputs=points,
                high_res_features=maps[:-1],
                multimask_output=False,
            )[3]
            found.append(decoder.mask(published))
    return found


@torch.inference_mode()
def track(network: torch.nn.Module, video: torch.Tensor, key: int, box: np.ndarray) -> dict[int, ReferenceMask]:
    """Forward from `key`, reset, and backward from it, as MedSAM2's inference script does."""
    size = video.shape[-1]
    cpu = torch.device("cpu")
    state = {"images": video, "num_frames": len(video), "video_height": size, "video_width": size}
    state |= {"offload_video_to_cpu": False, "offload_state_to_cpu": False, "device": cpu, "storage_device": cpu}
    for name in ("point_inputs", "mask_inputs", "output_dict", "temp_output_dict", "frames_tracked"):
        state[f"{name}_per_obj"] = {}
    state |= {"cached_features": {}, "constants": {}, "obj_ids": []}
    state |= {"obj_id_to_idx": OrderedDict(), "obj_idx_to_id": OrderedDict()}
    found = {}
    with _Decoder(network) as decoder:
        for reverse in (False, True):
            _, _, published = network.add_new_points_or_box(state, key, 1, box=box)
            found[key] = decoder.mask(published)
            for number, _, published in network.propagate_in_video(state, reverse=reverse):
                if number != key:
                    found[number] = decoder.mask(published)
            network.reset_state(state)
    return found


class _Decoder:
    """Keeps what the mask decoder gave last."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network

    def __enter__(self) -> "_Decoder":
        decoder = self._network.sam_mask_decoder
        self._hooks = [
            decoder.register_forward_hook(lambda m, a, out: setattr(self, "_output", out)),
            decoder.output_upscaling[4].register_forward_hook(lambda m, a, out: setattr(self, "_upscaled", out)),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def mask(self, published: torch.Tensor) -> ReferenceMask:
        masks, ious, _, score = self._output
        best = int(ious[0].argmax())
        return ReferenceMask(
            masks[0, best].numpy().copy(),
            self._upscaled[0].numpy().copy(),
            float(ious[0, best]),
            float(score),
            published[0, 0].numpy().copy(),
        )
