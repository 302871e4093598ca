"""SegVol at a small size: official names of its weights, drawn weights, what the released code makes of them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import torch

_REFERENCE = json.loads((Path(__file__).parent / "segvol_reference.json").read_text(encoding="utf-8"))
STATISTICS = _REFERENCE["statistics"]  # segvol_reference.json says how they were made
FULL_SHAPES = {name: tuple(full) for name, (full, _) in _REFERENCE["weights"].items()}
SMALL_SHAPES = {name: tuple(small) for name, (_, small) in _REFERENCE["weights"].items() if small}
SMALL = {
    "image": (16, 64, 64),
    "patch": (4, 16, 16),
    "width": 48,
    "mlp_width": 96,
    "depth": 2,
    "heads": 4,
    "decoder_mlp_width": 64,
    "decoder_heads": 2,
    "text_width": 32,
    "text_mlp_width": 64,
    "text_depth": 2,
    "text_heads": 2,
}
BOX = (2, 16, 21, 8, 35, 62)  # first, then last d, h, w within


def drawn_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights under their official names; those of norms about one, all others about zero."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in sorted(SMALL_SHAPES.items()):
        scale = 0.2 if len(shape) < 2 else 1 / math.sqrt(math.prod(shape[1:]))
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        if re.search(r"(norm\d?|norm_final_attn|output_upscaling\.1)\.weight$", name):
            values += 1
        state[name] = torch.from_numpy(values)
    return state


def drawn_image() -> np.ndarray:
    return np.random.default_rng(1).random(SMALL["image"], dtype=np.float32)
