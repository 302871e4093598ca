"""MedSAM2's network as transformers builds it, with an official checkpoint in it.

MedSAM2 is SAM2.1 with the Hiera tiny encoder at 512 x 512. No weight depends on that size: it is a parameter here.
"""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from auvtool.checkpoint import load_strictly, read_weights
from auvtool.errors import InputError, one_line
from auvtool.extractors.medsam2_keys import other_network, transformers_names

_OLDEST = (4, 57, 6)  # older ones leave out the padding point beside a box: logits off by 0.2


def load_network(path: Path, *, image_size: int, tracking: bool, trust: bool = False) -> Any:
    """Sam2Model, or for tracking Sam2VideoModel, with the weights of an official checkpoint, in evaluation mode.

    SAM2.1's own Hiera tiny checkpoint has the same names and shapes and is taken too.

    Raises:
        InputError: transformers is missing, too old or broken, or the weights are damaged or of another network.
    """
    _require_transformers()
    state = read_weights(path, trust=trust)
    other = other_network(state)
    if other is not None:
        raise InputError(
            path,
            expected="MedSAM2's weights (SAM2.1, Hiera tiny)",
            found=other,
            cure="name one of the authors' MedSAM2_*.pt",
        )
    network = build_network(image_size, tracking=tracking)
    load_strictly(
        network,
        transformers_names(state, with_memory=tracking),
        path,
        expected="MedSAM2's weights (here by transformers' names)",
    )
    network.eval().requires_grad_(requires_grad=False)
    return network


def build_network(image_size: int, *, tracking: bool) -> Any:
    """The network with the weights that its constructor draws.

    Raises:
        InputError: torchvision does not match torch.
    """
    try:
        from transformers import (
            Sam2Config,
            Sam2MaskDecoderConfig,
            Sam2Model,
            Sam2PromptEncoderConfig,
            Sam2VideoConfig,
            Sam2VideoMaskDecoderConfig,
            Sam2VideoModel,
            Sam2VideoPromptEncoderConfig,
            Sam2VisionConfig,
        )
    except (ImportError, RuntimeError) as error:
        raise InputError(
            "transformers",
            expected="the package, and a torchvision that matches torch or none",
            found=f"'{one_line(error)[:160]}'",
            cure="reinstall torch and torchvision together, or uninstall torchvision",
        ) from error
    vision = Sam2VisionConfig(backbone_feature_sizes=[[image_size // stride] * 2 for stride in (4, 8, 16)])
    if not tracking:
        prompts = Sam2PromptEncoderConfig(image_size=image_size)
        return Sam2Model(
            Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=Sam2MaskDecoderConfig())
        )
    return Sam2VideoModel(
        Sam2VideoConfig(
            vision_config=vision,
            prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=image_size),
            mask_decoder_config=Sam2VideoMaskDecoderConfig(),
            image_size=image_size,
            memory_attention_rope_feat_sizes=[image_size // 16] * 2,
        )
    )


def _require_transformers() -> None:
    if find_spec("transformers") is None:
        found = "none"
    else:
        found = metadata.version("transformers")
        if tuple(int(part) for part in found.split(".")[:3] if part.isdecimal()) >= _OLDEST:
            return
    raise InputError(
        "medsam2",
        expected=f"the package transformers, {'.'.join(map(str, _OLDEST))} or newer",
        found=found,
        cure="pip install 'auvtool[models]'",
    )
