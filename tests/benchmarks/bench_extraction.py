"""CPU seconds of `extract` against the bare network on the same slices and boxes, and what bfloat16 saves and moves.

By hand: AUVTOOL_TEST_DATA=... pytest -s tests/benchmarks/bench_extraction.py
"""

import time

import numpy as np
import torch
from scipy.stats import spearmanr

from auvtool.case_extraction import ExtractionSettings
from auvtool.dataset import open_dataset
from auvtool.device import to_device
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import plan_extraction
from auvtool.extractors import load_extractor
from auvtool.extractors.litemedsam import grid_boxes, model_images
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.prompted_masks import loosened
from auvtool.feature_store import FeatureFile
from auvtool.measurement import choose_slices
from auvtool.scale import semantic_perception_scale
from auvtool.volume import read_case

N_CASES, N_SLICES = 12, 6


def bare_inputs(dataset):
    """The model's images, and for each class its slices, boxes and wider boxes, of every case."""
    cpu, found = torch.device("cpu"), []
    for case in dataset.cases[:N_CASES]:
        volume = read_case(case, dataset)
        slices = choose_slices(volume.label, dataset.classes, len(volume.label), stride=1, limit=N_SLICES)
        prompts = []
        for one in dataset.classes:
            masks = np.isin(volume.label[slices], one.labels)
            rows = np.flatnonzero(masks.any(axis=(1, 2)))
            boxes = grid_boxes(masks[rows])
            prompts += [(rows, to_device(box, cpu)) for box in (boxes, loosened(boxes, 256, 256))]
        found.append((model_images(to_device(volume.image[0][slices], cpu)), prompts))
    return found


@torch.inference_mode()
def bare_seconds(extractor, inputs, amp):
    start = time.process_time()
    for images, prompts in inputs:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp == "bf16"):
            layout = torch.channels_last
            one_by_one = [extractor.network.image_encoder(one[None].contiguous(memory_format=layout)) for one in images]
            embeddings = torch.cat(one_by_one).float()
            for rows, boxes in prompts:
                for first in range(0, len(rows), 4):
                    part = slice(first, first + 4)
                    extractor.decode_prompts(embeddings[rows[part]], boxes[part])
    return time.process_time() - start


def extraction_seconds(dataset, amp, folder):
    ids = [case.case_id for case in dataset.cases[:N_CASES]]
    settings = ExtractionSettings(model=ModelOptions(amp=amp), input="raw", max_slices=N_SLICES)
    plan = plan_extraction(dataset, settings, folder / f"{amp}.h5", case_ids=ids)
    start = time.process_time()
    run_extraction(plan)
    return time.process_time() - start


def scales(path):
    with FeatureFile(path) as file:
        spectra = [file.case(case_id).spectra["volume", "logits", "d_hw", "uncentered"] for case_id in file.case_ids]
    return np.array([semantic_perception_scale(one, energy="squared") for of_case in spectra for one in of_case])


def test_extraction_against_the_bare_network(real_data, tmp_path):
    torch.set_num_threads(1)
    dataset = open_dataset(real_data / "hippocampus" / "Dataset004_Hippocampus")
    inputs = bare_inputs(dataset)
    extractor = load_extractor("litemedsam", ModelOptions(), device="cpu")
    bare_seconds(extractor, inputs[:1], "off")
    extraction_seconds(dataset, "off", tmp_path)  # loads the model, whose time is not of the cases
    print(f"\n{N_CASES} cases, at most {N_SLICES} slices each, CPU seconds")
    print("| amp | bare network | extract | share of the bare network's throughput |")
    print("|---|---|---|---|")
    for amp in ("off", "bf16"):
        (tmp_path / f"{amp}.h5").unlink(missing_ok=True)
        if amp == "bf16":
            extraction_seconds(dataset, amp, tmp_path)
            (tmp_path / f"{amp}.h5").unlink()
        bare, whole = bare_seconds(extractor, inputs, amp), extraction_seconds(dataset, amp, tmp_path)
        print(f"| {amp} | {bare:.1f} | {whole:.1f} | {bare / whole:.2f} |", flush=True)
    exact, coarse = scales(tmp_path / "off.h5"), scales(tmp_path / "bf16.h5")
    print(f"S with bf16: Spearman {spearmanr(exact, coarse).statistic:.3f} with S without")
    print(f"largest difference {np.abs(exact - coarse).max():.4f} where S spreads over {np.ptp(exact):.4f}")
