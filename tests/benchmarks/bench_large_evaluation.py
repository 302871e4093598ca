"""CPU seconds and memory of one large case: nnU-Net's own evaluation, ours, and decompressing both files alone.

By hand, 2 GB of memory and minutes: pytest -s tests/benchmarks/bench_large_evaluation.py
"""

import multiprocessing
import statistics
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

SHAPE, N_CLASSES, SPACING_MM = (300, 512, 512), 118, (1.5, 0.8, 0.8)  # k, j, i
N_RUNS = 7


def organs():
    """Ellipsoids with a wavy outline, some over others; a fifth of the volume."""
    rng = np.random.default_rng(0)
    label = np.zeros(SHAPE, dtype=np.uint8)
    for value in range(1, N_CLASSES + 1):
        centre, radius = rng.uniform(0.15, 0.85, 3) * SHAPE, rng.uniform(0.03, 0.13, 3) * SHAPE
        box = tuple(slice(max(0, int(c - r)), int(c + r) + 2) for c, r in zip(centre, radius, strict=True))
        part = label[box]
        at = np.ogrid[tuple(slice(side.start, side.start + n) for side, n in zip(box, part.shape, strict=True))]
        distance = sum(((x - c) / r) ** 2 for x, c, r in zip(at, centre, radius, strict=True))
        waves = np.sin(at[0] / 3 + value) * np.sin(at[1] / 7) * np.sin(at[2] / 9)
        part[distance * (1 + 0.15 * waves) < 1] = value
    return label


def predicted(label):
    """The same a few voxels aside, and with a rough outline."""
    moved = np.roll(label, (1, 2, 1), (0, 1, 2))
    outline = label != np.roll(label, 1, axis=2)
    moved[outline & (np.random.default_rng(1).random(SHAPE) < 0.3)] = 0
    return moved


def nnunets(prediction, reference):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    def run():
        found = compute_metrics(str(reference), str(prediction), SimpleITKIO(), list(range(1, N_CLASSES + 1)))
        return [[found["metrics"][value][name] for name in ("TP", "FP", "FN", "TN")] for value in found["metrics"]]

    return run


def ours(prediction, reference, **surfaces):
    from auvtool.dataset_json import SemanticClass
    from auvtool.evaluation import compare_case
    from auvtool.evaluation_pairs import Comparison, Pair
    from auvtool.surface_distances import SurfaceMeasures, surface_agreement

    classes = tuple(SemanticClass(value, str(value), (value,)) for value in range(1, N_CLASSES + 1))
    comparison = Comparison((), (), (), classes, None, (), has_regions=False, dataset_json=reference)
    measures = SurfaceMeasures(**surfaces)
    if measures:
        corner = np.zeros((3, 3, 3), dtype=bool)
        corner[1, 1, 1] = True
        surface_agreement(corner, corner, spacing_mm=SPACING_MM, measures=measures)  # MONAI is imported here

    def run():
        found = compare_case(Pair("case", prediction, reference), comparison, surfaces=measures)
        return [[one.tp, one.fp, one.fn, one.tn] for one in found.overlaps]

    return run


def surfaces(prediction, reference):
    return ours(prediction, reference, hd95=True, nsd_tolerance_mm=1.0)


def decompression(prediction, reference):
    from auvtool.gzip_stream import GzipStream

    def run():
        for path in (reference, prediction):
            with GzipStream(path) as stream:
                stream.finish()

    return run


def memory_mib(name):
    """Memory of this process as Linux tells it; getrusage would count what the parent had at the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def ours_with_zlib(prediction, reference):
    use_zlib()
    return ours(prediction, reference)


def decompression_with_zlib(prediction, reference):
    use_zlib()
    return decompression(prediction, reference)


def use_zlib():
    """In this process, as where ISA-L is not built."""
    from auvtool import gzip_stream

    gzip_stream.new_inflater = zlib.decompressobj


def measured(make, paths, n_runs, queue):
    run = make(*paths)
    before = memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    seconds = []
    for _ in range(n_runs):
        start = time.process_time()
        found = run()
        seconds.append(time.process_time() - start)
    queue.put((statistics.median(seconds), memory_mib("VmHWM") - before, found))


def in_a_process(make, paths, n_runs=N_RUNS):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measured, args=(make, paths, n_runs, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    label = organs()
    written = []
    for name, voxels in (("prediction", predicted(label)), ("reference", label)):
        image = nibabel.Nifti1Image(voxels.T, np.diag([*SPACING_MM[::-1], 1.0]))
        image.header.set_slope_inter(1.0, 0.0)
        written.append(tmp_path_factory.mktemp("large") / f"{name}.nii.gz")
        nibabel.save(image, written[-1])
    return written


def test_a_large_case(paths):
    floor, floor_memory, _ = in_a_process(decompression, paths)
    seconds, memory, counts = in_a_process(ours, paths)
    zlib_floor, _, _ = in_a_process(decompression_with_zlib, paths)
    zlib_seconds, zlib_memory, zlib_counts = in_a_process(ours_with_zlib, paths)
    slow_seconds, slow_memory, slow_counts = in_a_process(nnunets, paths, n_runs=1)
    with_surfaces, surface_memory, _ = in_a_process(surfaces, paths, n_runs=1)
    print(f"\n{SHAPE}, {N_CLASSES} classes, one thread: CPU seconds, MiB more than after the imports")
    print(f"nnU-Net's compute_metrics   {slow_seconds:8.2f} {slow_memory:6.0f}")
    print(f"auvtool                     {seconds:8.3f} {memory:6.0f}   {slow_seconds / seconds:.0f} times less CPU")
    print(f"decompressing both files    {floor:8.3f} {floor_memory:6.0f}   auvtool: {seconds / floor:.1f} times that")
    print(f"auvtool with zlib           {zlib_seconds:8.3f} {zlib_memory:6.0f}   {zlib_floor:.3f} for decompressing")
    print(f"auvtool --hd95 --nsd 1      {with_surfaces:8.2f} {surface_memory:6.0f}")
    assert counts == zlib_counts == slow_counts
