"""Label maps from a nnU-Net results folder, through nnU-Net's own predictor in this process."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.atomic import as_output_error, holds_anything, move_into_place, write_text
from auvtool.cases import Case
from auvtool.device import torch_device
from auvtool.errors import AuvtoolError, InputError, OutputError, UsageError, one_line
from auvtool.failures import failure_row
from auvtool.manifest import input_digest, size_and_time
from auvtool.nnunet_run import load_network, read_json
from auvtool.schema import Row
from auvtool.training.captured_output import captured_output
from auvtool.volume import read_image

RECORD = "auvtool_predict.json"
_PARTIAL = ".auvtool-"  # begin of the name of a hidden folder, in which a map is written
# Beside a label map, as nnU-Net's ensembles read them: the maps, and the geometry that its writers need.
_PROBABILITY_ENDINGS = (".npz", ".pkl")


@dataclass(frozen=True)
class Model:
    """Checkpoints of a run, loaded once.

    Attributes:
        predictor: nnU-Net's nnUNetPredictor.
        checkpoints: one for each fold; their softmax outputs are averaged.
        sha256: of all checkpoint files.
        file_ending: of images and of the label maps to write.
        n_channels: of an image.
        mirror: whether mirrored predictions are averaged, as stock nnU-Net does.
    """

    predictor: Any
    checkpoints: tuple[Path, ...]
    sha256: str
    file_ending: str
    n_channels: int
    mirror: bool


@dataclass(frozen=True)
class Predictions:
    """What a run of `predict` did: ids of the cases."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: tuple[Row, ...]


@contextmanager
def nnunet_process(threads: int = 1) -> Iterator[None]:
    """nnU-Net without its output and with `threads` threads, for the block."""
    # Read at nnU-Net's first import: the threads that it resamples with.
    os.environ.setdefault("nnUNet_def_n_proc", str(threads))
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with captured_output(Path(os.devnull)):
            yield
    finally:
        torch.set_num_threads(before)


def load_model(
    run: Path, checkpoints: Sequence[Path], *, device: str = "cpu", mirror: bool | None = None, trust: bool = False
) -> Model:
    """The network of a results folder with the weights of `checkpoints`; call it inside `nnunet_process`.

    Args:
        run: results folder with plans.json and dataset.json.
        checkpoints: see `auvtool.nnunet_run.find_checkpoints`.
        device: cpu, cuda, cuda:N.
        mirror: average over mirrored images as stock nnU-Net does (None: on a GPU only; it costs 8 times the time).
        trust: unpickle whatever the checkpoints hold, which can run any code.

    Raises:
        InputError: see `load_network`.
        UsageError: no such device, or the network needs a package that is not installed.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    where = torch_device(device)
    mirror = where.type != "cpu" if mirror is None else mirror
    loaded = load_network(run, checkpoints, trust=trust)
    predictor = nnUNetPredictor(use_mirroring=mirror, device=where, allow_tqdm=False)
    predictor.manual_initialization(
        loaded.network,
        loaded.plans,
        loaded.configuration,
        [checkpoint["network_weights"] for checkpoint in loaded.checkpoints],
        loaded.dataset_json,
        loaded.checkpoints[0]["trainer_name"],
        loaded.checkpoints[0].get("inference_allowed_mirroring_axes"),
    )
    digest = hashlib.sha256("".join(input_digest(path) for path in checkpoints).encode()).hexdigest()
    return Model(predictor, tuple(checkpoints), digest, loaded.dataset_json["file_ending"], loaded.n_channels, mirror)


def predict(
    model: Model,
    cases: Sequence[Case],
    output: Path,
    *,
    probabilities: bool = False,
    force: bool = False,
    keep_going: bool = True,
    on_case: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """Write a label map for each case into `output`; call it inside `nnunet_process`.

    A file appears whole or not at all. Without `force` cases that have all that is asked for are skipped, so that a
    killed run goes on. plans.json and dataset.json are written beside, as nnU-Net does, and a record of the model and
    the images by size and time.

    Args:
        model: see `load_model`.
        cases: see `auvtool.prediction_images.find_images`.
        output: folder; made if need be.
        probabilities: write too what nnU-Net's --save_probabilities does, for its ensembles: CASE.npz with the array
            `probabilities` (class, and the axes of nnU-Net's reader; softmax, or the sigmoid of each region), CASE.pkl.
        force: predict cases again that are predicted.
        keep_going: go on after a case that fails.
        on_case: told the id of each case that is through.

    Raises:
        UsageError: `output` holds predictions of another model or of images that are not today's, or other files.
        OutputError: the disk is full, or the like.
        InputError: a case failed, and `keep_going` is off.
    """
    _open_output(model, output, cases, force=force)
    done, skipped, failures = [], [], []
    for case in cases:
        if not force and is_predicted(case, output, model.file_ending, probabilities=probabilities):
            skipped.append(case.case_id)
        else:
            try:
                predicted = _predict_case(model, case, probabilities=probabilities)
            except AuvtoolError as error:
                if not keep_going:
                    raise
                failures.append(failure_row(case.case_id, "predict", str(error)))
            except Exception as error:
                if not keep_going:
                    raise InputError(
                        case.case_id, expected="an image to predict", found=one_line(error), cure="check it"
                    ) from error
                failures.append(failure_row(case.case_id, "predict", f"{type(error).__name__}: {one_line(error)}"))
            else:
                _write(model, predicted, case.case_id, output)
                del predicted  # gigabytes, with many classes: gone before the next case needs as much
                done.append(case.case_id)
        on_case(case.case_id)
    return Predictions(tuple(done), tuple(skipped), tuple(failures))


def is_predicted(case: Case, output: Path, file_ending: str, *, probabilities: bool = False) -> bool:
    """Whether `output` holds all that `predict` writes for a case."""
    endings = (file_ending, *_PROBABILITY_ENDINGS) if probabilities else (file_ending,)
    return all((output / (case.case_id + ending)).exists() for ending in endings)


def require_own_folder(output: Path) -> None:
    """Refuse a folder of other files: labels of the same name would count as predicted, and go under `force`.

    Raises:
        UsageError: see above, or `output` is a file.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: expected a folder to write, got a file; name a folder")
    if output.is_dir() and not (output / RECORD).is_file() and holds_anything(output):
        raise UsageError(f"{output}: expected a new folder or one that predict wrote, got another; name a new folder")


@dataclass(frozen=True)
class _Predicted:
    """What nnU-Net makes of a case: label map and, if asked for, probabilities, on the image's grid."""

    segmentation: Any
    probabilities: Any | None
    properties: dict[str, Any]


def _predict_case(model: Model, case: Case, *, probabilities: bool) -> _Predicted:
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    # First by our reader: nnU-Net's own takes NaN, and files that a broken download cut off.
    scan, _ = read_image(case.images)
    if len(scan) != model.n_channels:
        raise InputError(
            case.images[0], expected=f"{model.n_channels} channels", found=len(scan), cure="check the channel files"
        )
    predictor = model.predictor
    image, _, properties = predictor.configuration_manager.preprocessor_class(verbose=False).run_case(
        [str(path) for path in case.images],
        None,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.dataset_json,
    )
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image)).cpu()
    made = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.label_manager,
        properties,
        return_probabilities=probabilities,
        num_threads_torch=torch.get_num_threads(),
    )
    segmentation, maps = made if probabilities else (made, None)
    return _Predicted(segmentation, maps, properties)


def _write(model: Model, predicted: _Predicted, case_id: str, output: Path) -> None:
    label = case_id + model.file_ending
    try:
        # Some of nnU-Net's writers make a second file beside (tif: the spacing).
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=output) as partial:
            folder = Path(partial)
            if predicted.probabilities is not None:
                _write_probabilities(predicted.probabilities, predicted.properties, folder / case_id)
            writer = model.predictor.plans_manager.image_reader_writer_class()
            writer.write_seg(predicted.segmentation, str(folder / label), predicted.properties)
            # Those of an earlier prediction go before their label map does, which stands for the case from then on.
            for ending in _PROBABILITY_ENDINGS:
                (output / (case_id + ending)).unlink(missing_ok=True)
            for file in sorted(folder.iterdir(), key=lambda file: file.name == label):
                move_into_place(file, output / file.name)
    except (OSError, RuntimeError) as error:  # SimpleITK says RuntimeError when the disk is full
        raise OutputError(
            f"{output / label}: expected to be able to write here, got '{one_line(error)}'; check the folder and its "
            "space"
        ) from error


def _write_probabilities(probabilities: Any, properties: dict[str, Any], stem: Path) -> None:
    import numpy as np
    from batchgenerators.utilities.file_and_folder_operations import save_pickle

    npz, pkl = (stem.with_name(stem.name + ending) for ending in _PROBABILITY_ENDINGS)
    np.savez_compressed(npz, probabilities=probabilities)
    save_pickle(properties, str(pkl))


def _open_output(model: Model, output: Path, cases: Sequence[Case], *, force: bool) -> None:
    """Make the folder, with the record of model and images; before that the maps that `force` replaces go.

    After a kill, a map of another model that had not been replaced yet would count as one of this model.
    """
    require_own_folder(output)
    record = {"model_sha256": model.sha256, "mirror": model.mirror}
    path = output / RECORD
    before = read_json(path) if path.is_file() else {**record}
    if not force and {name: before.get(name) for name in record} != record:
        raise UsageError(
            f"{output}: expected predictions of the same model, got another's; name another folder or add --force"
        )
    recorded = before.get("images")
    known: dict[str, object] = recorded if isinstance(recorded, dict) else {}
    images = {case.case_id: _state(case) for case in cases}
    changed = [
        case.case_id
        for case in cases
        if known.get(case.case_id, images[case.case_id]) != images[case.case_id]
        and is_predicted(case, output, model.file_ending)
    ]
    if changed and not force:
        raise UsageError(
            f"{output}: expected predictions of these images, got those of others of the same name or from before they "
            f"changed ({', '.join(changed[:5])}{', ...' if len(changed) > 5 else ''}); name another folder, or add "
            "--force (with --cases for some)"
        )
    with as_output_error(output):
        output.mkdir(parents=True, exist_ok=True)
        for case in cases if force else ():
            for ending in (model.file_ending, *_PROBABILITY_ENDINGS):
                (output / (case.case_id + ending)).unlink(missing_ok=True)
        for partial in output.glob(f"{_PARTIAL}*"):  # of a run that was killed
            shutil.rmtree(partial)
    for name, content in (
        # The record first: a folder that holds other files but not this one is not ours.
        (RECORD, {**record, "images": dict(sorted({**known, **images}.items()))}),
        ("dataset.json", model.predictor.dataset_json),
        ("plans.json", model.predictor.plans_manager.plans),
    ):
        write_text(output / name, json.dumps(content, indent=4, ensure_ascii=False) + "\n", force=True)


def _state(case: Case) -> list[list[int]]:
    """Size and time of each file, whatever it is called: an image may be named by a link."""
    return [list(size_and_time(path)) for path in case.images]
