"""Names of SAM2's weights: those of its authors' checkpoints, and those of transformers' networks."""

import re
from collections.abc import Mapping

import torch

# From an authors' name to transformers', each rule applied in turn.
_RULES = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    # Networks of two layers, within transformer blocks; of three, the heads.
    (r"(blocks|layers)\.(\d+)\.mlp\.layers\.0\.", r"\1.\2.mlp.proj_in."),
    (r"(blocks|layers)\.(\d+)\.mlp\.layers\.1\.", r"\1.\2.mlp.proj_out."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"(_head|_mlps\.\d+|_pointer_proj)\.layers\.0\.", r"\1.proj_in."),
    (r"(_head|_mlps\.\d+|_pointer_proj)\.layers\.1\.", r"\1.layers.0."),
    (r"(_head|_mlps\.\d+|_pointer_proj)\.layers\.2\.", r"\1.proj_out."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"(_attn|_image|_token)\.out_proj\.", r"\1.o_proj."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.mask_downsampler\.encoder\.12\.", "memory_encoder.mask_downsampler.final_conv."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"(memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"(memory_fuser\.layers\.\d+)\.gamma$", r"\1.scale"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
)
# Convolution, layer norm and activation by turns, four times.
_DOWNSAMPLER = re.compile(r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.")
_POINTS = re.compile(r"^prompt_encoder\.point_embeddings\.(\d+)\.weight$")
# What only tracking through a volume needs.
_MEMORY = re.compile(
    r"memory_|mask_downsample\.|object_pointer_proj\.|temporal_positional_encoding_projection_layer\."
    r"|no_memory_positional_encoding$|no_object_pointer$|occlusion_spatial_embedding_parameter$"
)
_TRUNK = "image_encoder.trunk."
_HIERA = {(96, 16): "small", (112, 24): "base-plus", (144, 48): "large"}  # by channels and blocks


def transformers_names(state: Mapping[str, torch.Tensor], *, with_memory: bool) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint under the names that transformers has for them.

    The four embeddings of points and corners become one, and the matrix of positions, which images and prompts share,
    stands twice. Names without a rule are left as they are, and so are embeddings of points that do not fit together.

    Args:
        state: by the authors' names.
        with_memory: for Sam2VideoModel; Sam2Model lacks what tracking needs.
    """
    renamed = {_renamed(name): tensor for name, tensor in state.items()}
    points = sorted(name for name in renamed if _POINTS.match(name))
    if len({renamed[name].shape for name in points}) == 1 and renamed[points[0]].ndim:
        renamed["prompt_encoder.point_embed.weight"] = torch.cat([renamed.pop(name) for name in points])
    positions = renamed.get("prompt_encoder.shared_embedding.positional_embedding")
    if positions is not None:
        renamed["shared_image_embedding.positional_embedding"] = positions
    return renamed if with_memory else {name: t for name, t in renamed.items() if not _MEMORY.match(name)}


def other_network(state: Mapping[str, torch.Tensor]) -> str | None:
    """The network that a checkpoint is of, where its names and shapes tell that it is a known one of another kind."""
    trunk = [name for name in state if name.startswith(_TRUNK)]
    if trunk and f"{_TRUNK}pos_embed_window" not in state:
        return "those of Efficient MedSAM2 (EfficientTAM)"
    if trunk:
        patches = state.get(f"{_TRUNK}patch_embed.proj.weight", torch.empty(0))
        n_channels = len(patches) if patches.ndim else 0
        n_blocks = len({name.removeprefix(_TRUNK).split(".")[1] for name in trunk if ".blocks." in name})
        if (n_channels, n_blocks) in _HIERA:
            return f"those of SAM2's {_HIERA[n_channels, n_blocks]} network"
        if "no_obj_embed_spatial" not in state:
            return "those of SAM 2.0"
    if any(name.startswith("image_encoder.") for name in state) and not trunk:
        return "those of a first SAM, such as MedSAM"
    if any(name.startswith("vision_encoder.backbone.") for name in state):
        return "names that transformers gives to SAM2's"
    return None


def _renamed(name: str) -> str:
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    found = _DOWNSAMPLER.match(name)
    if not found:
        return name
    layer, kind = divmod(int(found.group(1)), 3)
    part = "conv" if kind == 0 else "layer_norm"
    return f"memory_encoder.mask_downsampler.layers.{layer}.{part}.{name[found.end() :]}"
