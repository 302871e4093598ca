"""CPU time, memory and error of the spectra against the released loop over classes, and a volume too large to hold.

By hand: pytest -s tests/benchmarks/bench_spectrum.py
"""

import concurrent.futures
import math
import multiprocessing
import re
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from map_families import families, scale_errors, svd_oracle

from auvtool.gram import batch_spectra, map_spectra, swept_spectra
from auvtool.scale import semantic_perception_scale
from auvtool.spectrum import UNFOLDINGS

SHAPES = ((3, 96, 96, 96), (14, 128, 128, 128), (105, 96, 96, 96))
N_RUNS = 5
LARGE = (105, 300, 512, 512)
SLAB_THICKNESS = 4


def released(maps, unfoldings):
    """The released function's singular values: in float32, class by class, an SVD with its vectors."""
    for unfolding in unfoldings:
        order = {"d_hw": (0, 1, 2), "h_dw": (1, 0, 2), "w_dh": (2, 0, 1)}[unfolding]
        for volume in maps:
            matrix = volume.permute(order).reshape(volume.shape[order[0]], -1)
            torch.linalg.svd(matrix, full_matrices=False)


def ours(maps, unfoldings):
    batch_spectra(maps, unfoldings=unfoldings, device=maps.device)


def milliseconds(function, *arguments, on_gpu):
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    function(*arguments)
    if on_gpu:
        torch.cuda.synchronize()
    return 1e3 * (clock() - start)


def by_turns(maps, unfoldings):
    """Median milliseconds of the loop and of ours, each once for warming up."""
    pairs = [
        [milliseconds(function, maps, unfoldings, on_gpu=maps.is_cuda) for function in (released, ours)]
        for _ in range(N_RUNS + 1)
    ][1:]
    return [statistics.median(side) for side in zip(*pairs, strict=True)]


def gemm_rate(device):
    """Float64 operations a millisecond of a large matrix product."""
    side = 2048
    matrix = torch.rand(side, side, dtype=torch.float64, device=device)
    runs = [milliseconds(torch.mm, matrix, matrix, on_gpu=device == "cuda") for _ in range(N_RUNS + 1)][1:]
    return 2 * side**3 / statistics.median(runs)


def resident_mib(which):
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{which}:\s+(\d+) kB", status).group(1)) / 1024


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def in_a_process_of_its_own(function, *arguments):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def extra_mib(name, shape, unfoldings):
    """Peak resident memory less what stood before, the maps and the loaded libraries."""
    torch.set_num_threads(1)
    function = {"released": released, "ours": ours}[name]
    function(torch.rand(1, 8, 8, 8), unfoldings)
    maps = torch.rand(shape)
    before = resident_mib("VmRSS")
    forget_peak()
    function(maps, unfoldings)
    return resident_mib("VmHWM") - before


def worst_errors(side):
    """Worst error of the scale, squared and linear energy, over families of maps, unfoldings and centrings.

    Then that of a float32 SVD, as released: of the uncentred d_hw.
    """
    worst = np.zeros(4)
    for volume in families((side, side, side)).values():
        errors = scale_errors(map_spectra(volume), volume)
        exact = svd_oracle(volume, "d_hw", "uncentered")
        rounded = torch.linalg.svd(torch.from_numpy(volume).flatten(1), full_matrices=False).S.double().numpy()
        of_loop = [
            abs(float(semantic_perception_scale(rounded, energy=e) - semantic_perception_scale(exact, energy=e)))
            for e in ("squared", "linear")
        ]
        linear = max(errors["linear", "denominator"], errors["linear", "added"])
        worst = np.maximum(worst, [errors["squared", "denominator"], linear, *of_loop])
    return worst


def print_rows(device):
    rate = gemm_rate(device)
    errors = {side: worst_errors(side) for side in (96, 128)} if device == "cpu" else {}
    print(f"\n{device}, float64 GEMM {rate / 1e6:.0f} GFLOP/s; median of {N_RUNS}; errors: squared, linear energy")
    print(
        "| maps | unfoldings | loop, ms | ours, ms | ratio | of GEMM | loop, MiB | ours, MiB | loop error | our error |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        maps = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32)).to(device)
        for unfoldings in (("d_hw",), UNFOLDINGS):
            loop, mine = by_turns(maps, unfoldings)
            operations = sum(2 * math.prod(shape) * shape[1 + UNFOLDINGS.index(one)] for one in unfoldings)
            cells = [f"{loop:.1f}", f"{mine:.1f}", f"{loop / mine:.1f}", f"{operations / mine / rate:.0%}"]
            if device == "cpu":
                memory = [in_a_process_of_its_own(extra_mib, name, shape, unfoldings) for name in ("released", "ours")]
                squared, linear, loop_squared, loop_linear = errors[shape[1]]
                cells += [f"{mib:.1f}" for mib in memory]
                cells += [f"{loop_squared:.0e}, {loop_linear:.0e}", f"{squared:.0e}, {linear:.0e}"]
            print(f"| {shape} | {len(unfoldings)} | " + " | ".join(cells) + " |")


def test_against_the_released_loop():
    torch.set_num_threads(1)
    print_rows("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_against_the_released_loop_on_a_gpu():
    print_rows("cuda")


def sweep_of_noise():
    """Spectra of maps that are made slab by slab; CPU seconds in all and of making the slabs, peak MiB, mean scale."""
    torch.set_num_threads(1)
    making = 0.0

    def sweep(axis):
        assert axis == "w"
        nonlocal making
        generator = np.random.default_rng(0)
        slab = np.empty((*LARGE[:3], SLAB_THICKNESS), dtype=np.float32)
        for start in range(0, LARGE[3], SLAB_THICKNESS):
            began = time.process_time()
            generator.random(out=slab, dtype=np.float32)
            making += time.process_time() - began
            yield start, slab

    before = resident_mib("VmRSS")
    began = time.process_time()
    spectra = swept_spectra(sweep, LARGE, unfoldings=("d_hw", "h_dw"))
    spent = time.process_time() - began
    return spent, making, before, resident_mib("VmHWM"), semantic_perception_scale(spectra["d_hw", "centered"]).mean()


def test_a_volume_that_never_exists():
    spent, making, before, peak, scale = in_a_process_of_its_own(sweep_of_noise)
    whole = math.prod(LARGE) * 4 / 2**20
    slab = whole * SLAB_THICKNESS / LARGE[3]
    grams = LARGE[0] * (LARGE[1] ** 2 + LARGE[2] ** 2) * 8 / 2**20
    print(
        f"\nd_hw and h_dw of {LARGE}, {whole / 1024:.0f} GiB in float32, in slabs {SLAB_THICKNESS} thick, one thread:"
    )
    print(
        f"{spent:.0f} CPU s, of which {making:.0f} s made the slabs; peak RSS {peak:.0f} MiB, of which {before:.0f} MiB"
    )
    print(f"stood before, {slab:.0f} MiB are one slab and {grams:.0f} MiB the Gram matrices; mean scale {scale:.6f}")
    assert 0.99 < scale <= 1.0
