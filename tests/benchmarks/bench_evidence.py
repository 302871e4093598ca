"""CPU seconds and memory of the evidence of a large CT with a hundred classes, each a box.

By hand, 1 GB of memory: pytest -s tests/benchmarks/bench_evidence.py
"""

import resource
import time

import numpy as np

from auvtool.case_evidence import case_evidence
from auvtool.dataset_json import SemanticClass

SHAPE, N_CLASSES = (300, 512, 512), 100


def test_evidence_of_a_large_ct():
    rng = np.random.default_rng(0)
    label = np.zeros(SHAPE, dtype=np.int16)
    for value in range(1, N_CLASSES + 1):
        size = [int(length * rng.uniform(0.05, 0.3)) for length in SHAPE]
        start = [int(rng.integers(0, length - part)) for length, part in zip(SHAPE, size, strict=True)]
        label[tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))] = value
    image = np.empty(SHAPE, dtype=np.float32)
    for picture, numbers in zip(image, label, strict=True):
        picture[:] = 20 * rng.normal(size=SHAPE[1:]) + 10 * numbers - 200
    classes = tuple(SemanticClass(value, str(value), (value,)) for value in range(1, N_CLASSES + 1))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = case_evidence(
        np.zeros(4), image=image, label=label, classes=classes, spacing_mm=(2.0, 1.0, 1.0), n_channels=N_CLASSES
    )
    seconds = time.process_time() - start
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # KiB on Linux
    print(f"\nevidence of {SHAPE} with {N_CLASSES} classes: {seconds:.1f} CPU seconds, {more:.0f} MiB more at the peak")
    print(f"(the image itself: {image.nbytes / 2**20:.0f} MiB)")
    assert np.isfinite(found.label_shape[:, 0]).any()
