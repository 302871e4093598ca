"""LiteMedSAM's network with random weights: the control that shows what its training adds.

A network that has learnt nothing reacts to noise, blur and box size too. What a score of the trained network finds and
this one does not is what the foundation model knows.
"""

from auvtool.errors import UsageError
from auvtool.extractors.litemedsam import LiteMedSam, build_network, prepare
from auvtool.extractors.model_options import ModelOptions

_SEED = 0


def load(options: ModelOptions, *, device: str) -> LiteMedSam:
    """The network as its package initialises it, always with the same seed.

    Raises:
        UsageError: weights were given, or the device is not there.
    """
    import torch

    if options.weights is not None:
        raise UsageError(
            f"--weights: expected none for litemedsam-random, got {options.weights}; use --extractor litemedsam"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build_network()
    return prepare(network, device)
