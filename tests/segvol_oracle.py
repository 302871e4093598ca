"""SegVol's equations again, plainly, in float64, from the official names of its weights; imports nothing of auvtool.

ViT: Dosovitskiy et al. 2021; text: Radford et al. 2021 (CLIP); prompts and decoder: Kirillov et al. 2023 (SAM), with a
third axis and the likeness to the text of Du et al. 2024 (SegVol).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.special import erf

Weights = dict[str, np.ndarray]


def as_arrays(state: dict[str, torch.Tensor]) -> Weights:
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def linear(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    made = x @ w[f"{name}.weight"].T
    return made + w[f"{name}.bias"] if f"{name}.bias" in w else made


def standardised(w: Weights, name: str, x: np.ndarray, n_axes: int = 1) -> np.ndarray:
    axes = tuple(range(-n_axes, 0))
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / np.sqrt(2))) / 2


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, *, causal: bool = False) -> np.ndarray:
    """Of tokens (n, width), a head after the other."""
    width = q.shape[1] // heads
    parts = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        likeness = q[:, own] @ k[:, own].T / np.sqrt(width)
        if causal:
            likeness = np.where(np.tri(len(q)) > 0, likeness, -np.inf)
        share = np.exp(likeness - likeness.max(axis=1, keepdims=True))
        parts.append(share / share.sum(axis=1, keepdims=True) @ v[:, own])
    return np.concatenate(parts, axis=1)


def image_tokens(w: Weights, image: np.ndarray, patch: Sequence[int], depth: int, heads: int) -> np.ndarray:
    """Tokens (place, width) of an image (d, h, w)."""
    pd, ph, pw = patch
    patches = [
        image[d : d + pd, h : h + ph, x : x + pw].ravel()
        for d in range(0, image.shape[0], pd)
        for h in range(0, image.shape[1], ph)
        for x in range(0, image.shape[2], pw)
    ]
    own = "image_encoder.patch_embedding"
    tokens = linear(w, f"{own}.patch_embeddings.1", np.stack(patches)) + w[f"{own}.position_embeddings"][0]
    for layer in range(depth):
        block = f"image_encoder.blocks.{layer}"
        q, k, v = np.split(linear(w, f"{block}.attn.qkv", standardised(w, f"{block}.norm1", tokens)), 3, axis=1)
        tokens = tokens + linear(w, f"{block}.attn.out_proj", attention(q, k, v, heads))
        inner = gelu(linear(w, f"{block}.mlp.linear1", standardised(w, f"{block}.norm2", tokens)))
        tokens = tokens + linear(w, f"{block}.mlp.linear2", inner)
    return standardised(w, "image_encoder.norm", tokens)


def text_vector(w: Weights, ids: Sequence[int], depth: int, heads: int) -> np.ndarray:
    own = "text_encoder.clip_text_model.text_model"
    tokens = w[f"{own}.embeddings.token_embedding.weight"][list(ids)]
    tokens = tokens + w[f"{own}.embeddings.position_embedding.weight"][: len(ids)]
    for layer in range(depth):
        block = f"{own}.encoder.layers.{layer}"
        x = standardised(w, f"{block}.layer_norm1", tokens)
        q, k, v = (linear(w, f"{block}.self_attn.{one}_proj", x) for one in "qkv")
        tokens = tokens + linear(w, f"{block}.self_attn.out_proj", attention(q, k, v, heads, causal=True))
        inner = linear(w, f"{block}.mlp.fc1", standardised(w, f"{block}.layer_norm2", tokens))
        tokens = tokens + linear(w, f"{block}.mlp.fc2", inner / (1 + np.exp(-1.702 * inner)))
    last = standardised(w, f"{own}.final_layer_norm", tokens)[-1]  # the token that ends the text
    return linear(w, "text_encoder.dim_align", last)


def position(w: Weights, place: np.ndarray) -> np.ndarray:
    """Of places (..., 3) in [0, 1]."""
    phase = 2 * np.pi * ((2 * place - 1) @ w["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"])
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)


def decoded(
    w: Weights,
    tokens: np.ndarray,
    places: Sequence[int],
    size: Sequence[int],
    text: np.ndarray,
    box: Sequence[float] | None,
    heads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the size of the image, and the upscaled embedding."""
    d, h, x = places
    where = np.array(
        [[(j + 0.5) / h, (i + 0.5) / d, (k + 0.5) / x] for i in range(d) for j in range(h) for k in range(x)]
    )
    where = position(w, where)
    prompts = [text]
    if box is not None:
        corners = np.array([box[:3], box[3:]]) + 0.5
        corners = position(w, corners / np.array([size[1], size[0], size[2]]))
        kinds = [w[f"prompt_encoder.point_embeddings.{kind}.weight"][0] for kind in (2, 3)]
        prompts = [corners[0] + kinds[0], corners[1] + kinds[1], text]
    own = "mask_decoder"
    asked = np.concatenate([w[f"{own}.iou_token.weight"], w[f"{own}.mask_tokens.weight"], np.stack(prompts)])
    image = tokens + w["prompt_encoder.no_mask_embed.weight"]

    def attend(name: str, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        projected = (linear(w, f"{name}.{one}_proj", given) for one, given in zip("qkv", (q, k, v), strict=True))
        return linear(w, f"{name}.out_proj", attention(*projected, heads))

    query = asked
    for layer in (0, 1):
        block = f"{own}.transformer.layers.{layer}"
        if layer == 0:
            query = attend(f"{block}.self_attn", query, query, query)
        else:
            query = query + attend(f"{block}.self_attn", query + asked, query + asked, query)
        query = standardised(w, f"{block}.norm1", query)
        query = query + attend(f"{block}.cross_attn_token_to_image", query + asked, image + where, image)
        query = standardised(w, f"{block}.norm2", query)
        inner = np.maximum(linear(w, f"{block}.mlp.lin1", query), 0)
        query = standardised(w, f"{block}.norm3", query + linear(w, f"{block}.mlp.lin2", inner))
        image = image + attend(f"{block}.cross_attn_image_to_token", image + where, query + asked, query)
        image = standardised(w, f"{block}.norm4", image)
    query = query + attend(f"{own}.transformer.final_attn_token_to_image", query + asked, image + where, image)
    query = standardised(w, f"{own}.transformer.norm_final_attn", query)

    maps = image.T.reshape(-1, d, h, x)
    maps = gelu(standardised(w, f"{own}.output_upscaling.1", doubled(w, f"{own}.output_upscaling.0", maps), n_axes=4))
    maps = gelu(doubled(w, f"{own}.output_upscaling.3", maps))
    mask = query[1]
    for layer in range(3):
        mask = linear(w, f"{own}.output_hypernetworks_mlps.0.layers.{layer}", mask)
        mask = np.maximum(mask, 0) if layer < 2 else mask
    low = np.tensordot(mask, maps, 1)
    low = low + np.tensordot(linear(w, f"{own}.txt_align_upscaled_embedding", text), maps, 1)
    return resized(low, size), maps


def doubled(w: Weights, name: str, maps: np.ndarray) -> np.ndarray:
    """Each voxel (channel, d, h, w) becomes eight."""
    _, d, h, x = maps.shape
    made = np.einsum("cdhx,coijk->odihjxk", maps, w[f"{name}.weight"])
    return made.reshape(-1, 2 * d, 2 * h, 2 * x) + w[f"{name}.bias"][:, None, None, None]


def resized(volume: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """By trilinear interpolation between the centres of voxels; beyond the last centre its value."""
    axes = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(size, volume.shape, strict=True)]
    return map_coordinates(volume, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")
