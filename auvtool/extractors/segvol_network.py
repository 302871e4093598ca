"""SegVol's network under the names of its checkpoints: a vision transformer, CLIP's text encoder, SAM's decoder in 3D.

Du et al., SegVol: Universal and Interactive Volumetric Medical Image Segmentation (NeurIPS 2024). The image encoder is
MONAI's ViT and the text encoder transformers' CLIP (its configuration alone, nothing is downloaded). Prompt encoder
and mask decoder follow SAM (Kirillov et al. 2023) with a third axis. What the authors left as it grew and the weights
were trained with is kept: coordinates are scaled by the sides of the image in the order h, d, w, and the layer norm
of the upscaling runs over channels and places, which fixes the size of the image.

Only what text and box prompts need is built; `NOT_NEEDED` names the rest of a checkpoint.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nn_functional
from jaxtyping import Float
from torch import nn

from auvtool.errors import InputError, one_line


@dataclass(frozen=True)
class SegVolSizes:
    """Sizes of the network; by default those of the released weights.

    Attributes:
        image, patch: sides (d, h, w) in voxels.
        width, mlp_width, depth, heads: of the image encoder; `width` is that of all tokens.
        decoder_mlp_width, decoder_heads: of the mask decoder.
        text_width, text_mlp_width, text_depth, text_heads: of the text encoder.
        n_text_tokens: most tokens of a text.
    """

    image: tuple[int, int, int] = (32, 256, 256)
    patch: tuple[int, int, int] = (4, 16, 16)
    width: int = 768
    mlp_width: int = 3072
    depth: int = 12
    heads: int = 12
    decoder_mlp_width: int = 2048
    decoder_heads: int = 8
    text_width: int = 512
    text_mlp_width: int = 2048
    text_depth: int = 12
    text_heads: int = 8
    n_text_tokens: int = 77

    @property
    def places(self) -> tuple[int, int, int]:
        """Tokens of the image along d, h and w."""
        (d, h, w), (patch_d, patch_h, patch_w) = self.image, self.patch
        return d // patch_d, h // patch_h, w // patch_w

    @property
    def n_features(self) -> int:
        """Channels of the upscaled embedding."""
        return self.width // 8


# Prompts that are not used here (points, masks), what SAM predicts beside its first mask (SegVol never trained the
# predicted IoU), a constant of old versions of transformers and a norm that new versions of MONAI build for nothing.
NOT_NEEDED = re.compile(
    r"prompt_encoder\.(mask_downscaling|not_a_point_embed|point_embeddings\.[01])\..*"
    r"|mask_decoder\.(iou_prediction_head|output_hypernetworks_mlps\.[123])\..*"
    r"|text_encoder\.clip_text_model\.(text_model\.)?embeddings\.position_ids"
    r"|image_encoder\.blocks\.\d+\.norm_cross_attn\..*"
)
_CORNERS = ("2", "3")  # of a box, in SAM's count of kinds of point
_TEXT, _TEXT_LEVEL = "text_encoder.clip_text_model.", "text_model."


class SegVolNetwork(nn.Module):
    """See the module.

    Raises:
        InputError: MONAI or transformers is missing, or torchvision does not match torch.
    """

    def __init__(self, sizes: SegVolSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.image_encoder = _image_encoder(sizes)
        self.text_encoder = TextEncoder(sizes)
        self.prompt_encoder = PromptEncoder(sizes)
        self.mask_decoder = MaskDecoder(sizes)

    def own_names(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A checkpoint's weights under the names of this network, without those that it does not need.

        The authors' trainer writes `module.` before each name, the Hugging Face release `model.`; transformers 4 has a
        level more in the text encoder than transformers 5.
        """
        for prefix in ("module.", "model."):
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        level = _TEXT_LEVEL if any(name.startswith(_TEXT + _TEXT_LEVEL) for name in self.state_dict()) else ""
        return {
            re.sub(f"^{re.escape(_TEXT)}({re.escape(_TEXT_LEVEL)})?", _TEXT + level, name): tensor
            for name, tensor in state.items()
            if not NOT_NEEDED.fullmatch(name)
        }

    def encode_image(self, images: Float[torch.Tensor, "image 1 d h w"]) -> Float[torch.Tensor, "image width pd ph pw"]:
        """Embeddings of images in [0, 1] of the network's size."""
        tokens: torch.Tensor = self.image_encoder(images)[0]
        return tokens.transpose(1, 2).reshape(-1, self.sizes.width, *self.sizes.places)

    def decode(
        self,
        embedding: Float[torch.Tensor, "1 width pd ph pw"],
        texts: Float[torch.Tensor, "prompt width"],
        boxes: Float[torch.Tensor, "prompt 6"] | None,
    ) -> tuple[Float[torch.Tensor, "prompt d h w"], Float[torch.Tensor, "prompt feature ud uh uw"]]:
        """Masks of one image, each for a text and, where there are boxes, a box (first, then last d, h, w within).

        Returns:
            Logits of the image's size, and the upscaled embedding that they are made of.
        """
        sparse = texts[:, None]
        if boxes is not None:
            sparse = torch.cat([self.prompt_encoder.box_tokens(boxes), sparse], dim=1)
        low, upscaled = self.mask_decoder(
            embedding + self.prompt_encoder.no_mask(), self.prompt_encoder.position_of_places(), sparse, texts
        )
        logits = nn_functional.interpolate(low[:, None], self.sizes.image, mode="trilinear", align_corners=False)
        return logits[:, 0], upscaled


def _image_encoder(sizes: SegVolSizes) -> nn.Module:
    try:
        from monai.networks.nets import ViT  # type: ignore[attr-defined]  # its __init__ imports it without __all__
    except ImportError as error:
        raise _missing("monai", error) from error
    encoder: nn.Module = ViT(
        in_channels=1,
        img_size=sizes.image,
        patch_size=sizes.patch,
        hidden_size=sizes.width,
        mlp_dim=sizes.mlp_width,
        num_layers=sizes.depth,
        num_heads=sizes.heads,
        proj_type="perceptron",
    )
    for block in encoder.get_submodule("blocks").children():
        block.norm_cross_attn = nn.Identity()  # MONAI builds it unused; checkpoints of its day have none
    return encoder


def _missing(package: str, error: Exception) -> InputError:
    return InputError(
        package,
        expected="the package, with a torchvision that matches torch",
        found=f"'{one_line(error)[:120]}'",
        cure="pip install 'auvtool[monai,models]', or reinstall torch and torchvision together",
    )


class TextEncoder(nn.Module):
    """CLIP's text encoder and the step to the width of the image's tokens."""

    def __init__(self, sizes: SegVolSizes) -> None:
        super().__init__()
        try:
            from transformers import CLIPTextConfig, CLIPTextModel
        except (ImportError, RuntimeError) as error:
            raise _missing("transformers", error) from error
        config = CLIPTextConfig(
            hidden_size=sizes.text_width,
            intermediate_size=sizes.text_mlp_width,
            num_hidden_layers=sizes.text_depth,
            num_attention_heads=sizes.text_heads,
            max_position_embeddings=sizes.n_text_tokens,
        )
        self.clip_text_model: Any = CLIPTextModel(config)
        self.dim_align = nn.Linear(sizes.text_width, sizes.width)

    def forward(self, tokens: Sequence[int]) -> Float[torch.Tensor, " width"]:
        """The vector of a text: CLIP's state at the token that ends it."""
        ids = torch.tensor([tokens], device=self.dim_align.weight.device)
        aligned: torch.Tensor = self.dim_align(self.clip_text_model(ids).pooler_output)
        return aligned[0]


class PromptEncoder(nn.Module):
    """Positions as sines and cosines of random frequencies, and learned vectors for what stands there."""

    def __init__(self, sizes: SegVolSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.pe_layer = _Frequencies(sizes.width // 2)
        self.point_embeddings = nn.ModuleDict({kind: nn.Embedding(1, sizes.width) for kind in _CORNERS})
        self.no_mask_embed = nn.Embedding(1, sizes.width)

    def no_mask(self) -> Float[torch.Tensor, "1 width 1 1 1"]:
        """What is added to the image where no mask is given."""
        return self.no_mask_embed.weight[:, :, None, None, None]

    def box_tokens(self, boxes: Float[torch.Tensor, "prompt 6"]) -> Float[torch.Tensor, "prompt 2 width"]:
        """Tokens of both corners of boxes (first d, h, w and last d, h, w within)."""
        d, h, w = self.sizes.image
        # SAM divides x by the width and y by the height; SegVol's first axis became depth, and its division stayed.
        corners = (boxes.reshape(-1, 2, 3) + 0.5) / boxes.new_tensor([h, d, w])
        kinds = torch.cat([self.point_embeddings.get_parameter(f"{kind}.weight") for kind in _CORNERS])
        encoded: torch.Tensor = self.pe_layer(corners)
        return encoded + kinds

    def position_of_places(self) -> Float[torch.Tensor, "1 width pd ph pw"]:
        """The position of each token of the image."""
        device = self.no_mask_embed.weight.device
        d, h, w = (
            (torch.arange(n, dtype=torch.float32, device=device) + 0.5) / n for n in self.sizes.places
        )  # centres in [0, 1]
        along_d, along_h, along_w = torch.meshgrid(d, h, w, indexing="ij")
        encoded: torch.Tensor = self.pe_layer(torch.stack([along_h, along_d, along_w], dim=-1))
        return encoded.permute(3, 0, 1, 2)[None]


class _Frequencies(nn.Module):
    def __init__(self, n_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(3, n_frequencies))

    def forward(self, places: Float[torch.Tensor, "... 3"]) -> Float[torch.Tensor, "... width"]:
        phases = 2 * math.pi * ((2 * places - 1) @ self.get_buffer("positional_encoding_gaussian_matrix"))
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class MaskDecoder(nn.Module):
    """Prompts and image attend to each other; a mask is an inner product with the upscaled image."""

    def __init__(self, sizes: SegVolSizes) -> None:
        super().__init__()
        width, upscaled = sizes.width, tuple(2 * n for n in sizes.places)
        self.transformer = _TwoWayTransformer(sizes)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(4, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(width, width // 4, kernel_size=2, stride=2),
            nn.LayerNorm((width // 4, *upscaled)),
            nn.GELU(),
            nn.ConvTranspose3d(width // 4, sizes.n_features, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList([_Mlp(width, width, sizes.n_features)])
        self.txt_align_upscaled_embedding = nn.Linear(width, sizes.n_features)

    def forward(
        self,
        image: Float[torch.Tensor, "1 width pd ph pw"],
        position: Float[torch.Tensor, "1 width pd ph pw"],
        prompts: Float[torch.Tensor, "prompt token width"],
        texts: Float[torch.Tensor, "prompt width"],
    ) -> tuple[Float[torch.Tensor, "prompt ud uh uw"], Float[torch.Tensor, "prompt feature ud uh uw"]]:
        """Logits of SAM's first mask, the one for unambiguous prompts, and the upscaled embedding."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(prompts), -1, -1), prompts], dim=1)
        tokens, places = self.transformer(
            tokens, image.flatten(2).transpose(1, 2).expand(len(prompts), -1, -1), position.flatten(2).transpose(1, 2)
        )
        upscaled = self.output_upscaling(places.transpose(1, 2).reshape(-1, *image.shape[1:]))
        # The text speaks twice: as a prompt, and here by its likeness to each place.
        mask = self.output_hypernetworks_mlps[0](tokens[:, 1]) + self.txt_align_upscaled_embedding(texts)
        return torch.einsum("pf,pfdhw->pdhw", mask, upscaled), upscaled


class _TwoWayTransformer(nn.Module):
    def __init__(self, sizes: SegVolSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_TwoWayLayer(sizes, first=first) for first in (True, False)])
        self.final_attn_token_to_image = _Attention(sizes, shrink=2)
        self.norm_final_attn = nn.LayerNorm(sizes.width)

    def forward(
        self, prompts: torch.Tensor, places: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, places = layer(tokens, places, prompts, position)
        attended = self.final_attn_token_to_image(tokens + prompts, places + position, places)
        return self.norm_final_attn(tokens + attended), places


class _TwoWayLayer(nn.Module):
    def __init__(self, sizes: SegVolSizes, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = _Attention(sizes, shrink=1)
        self.norm1 = nn.LayerNorm(sizes.width)
        self.cross_attn_token_to_image = _Attention(sizes, shrink=2)
        self.norm2 = nn.LayerNorm(sizes.width)
        self.mlp = _TwoLinear(sizes.width, sizes.decoder_mlp_width)
        self.norm3 = nn.LayerNorm(sizes.width)
        self.norm4 = nn.LayerNorm(sizes.width)
        self.cross_attn_image_to_token = _Attention(sizes, shrink=2)

    def forward(
        self, tokens: torch.Tensor, places: torch.Tensor, prompts: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.first:  # the tokens still are the prompts, and nothing is added to what attends
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens = tokens + self.self_attn(tokens + prompts, tokens + prompts, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompts, places + position, places))
        tokens = self.norm3(tokens + self.mlp(tokens))
        places = self.norm4(places + self.cross_attn_image_to_token(places + position, tokens + prompts, tokens))
        return tokens, places


class _Attention(nn.Module):
    def __init__(self, sizes: SegVolSizes, *, shrink: int) -> None:
        super().__init__()
        self.heads, inner = sizes.decoder_heads, sizes.width // shrink
        self.q_proj = nn.Linear(sizes.width, inner)
        self.k_proj = nn.Linear(sizes.width, inner)
        self.v_proj = nn.Linear(sizes.width, inner)
        self.out_proj = nn.Linear(inner, sizes.width)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        attended = nn_functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        projected: torch.Tensor = self.out_proj(attended)
        return projected


class _TwoLinear(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.lin2(self.lin1(tokens).relu())
        return changed


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, inner), nn.Linear(inner, inner), nn.Linear(inner, out)])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        first, second, last = self.layers
        made: torch.Tensor = last(second(first(tokens).relu()).relu())
        return made
