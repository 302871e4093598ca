"""The whole chain on real scans: extract, score, filter, train, predict, eval, as a user types it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import auvtool

from auvtool.feature_store import FeatureFile
from auvtool.quantification import read_cases
from auvtool.quantifiers import QUANTIFIERS
from auvtool.schema import KEEP_LIST, METRICS, SCORES
from auvtool.score_options import score_options
from auvtool.scoring import score_cases
from auvtool.tables import read_table

N_TRAINING, N_TEST = 6, 2


def run(*arguments: object) -> str:
    done = auvtool(*arguments, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def chain(real_data, tmp_path_factory) -> Path:
    """A folder with everything that the chain wrote, from a few cases of the hippocampus."""
    source = real_data / "hippocampus" / "Dataset004_Hippocampus"
    if not source.is_dir():
        pytest.skip("no hippocampus data set among the real scans")
    folder = tmp_path_factory.mktemp("chain")
    dataset = _subset(source, folder / "Dataset004_Hippocampus")
    run("extract", dataset, "-o", folder / "F.h5", "--max-slices", 4, "-j", 2, "-q")
    run("score", folder / "F.h5", "-o", folder / "S.csv")
    run("filter", folder / "S.csv", "--quantile", 0.8, "-o", folder / "K.csv")
    run(
        *("train", dataset, "--keep", folder / "K.csv", "-o", folder / "RUN", "--workspace", folder / "work"),
        *("--epochs", 2, "--iterations", 2, "--features", 8, "--batch-size", 2),
    )
    run("predict", folder / "RUN", dataset / "imagesTs", "-o", folder / "P", "--no-mirror")
    run("eval", folder / "P", dataset / "labelsTs", "-o", folder / "M.csv")
    return folder


def test_every_case_has_a_score_of_both_classes(chain):
    rows = read_table(chain / "S.csv", SCORES)
    assert len(rows) == N_TRAINING * 3
    assert all(row["status"] == "ok" and row["quantifier"] == "deviation" and row["value"] > 0 for row in rows)
    whole = [float(row["auv"]) for row in rows if row["class_id"] is None]
    assert (min(whole), max(whole)) == (0.0, 1.0)


@pytest.mark.parametrize("quantifier", [name for name in QUANTIFIERS if name != "predicted-dice"])
def test_every_quantifier_reads_the_same_features(chain, quantifier):
    with FeatureFile(chain / "F.h5") as file:
        scoring = score_cases(read_cases(file), file.header, score_options(quantifier))
    whole = scoring.whole_cases
    assert np.isfinite(whole.values).all()
    if quantifier == "depth":
        assert np.isnan(whole.auv).all()  # every case was cut to as many slices: none is more uncertain than another
        return
    assert (whole.auv.min(), whole.auv.max()) == (0.0, 1.0)
    assert len(set(whole.values)) > 1


def test_numbers_of_the_rivals_are_in_their_range(chain):
    def values(name):
        with FeatureFile(chain / "F.h5") as file:
            return score_cases(read_cases(file), file.header, score_options(name)).quantified.of_classes

    assert ((values("fisher") > 0) & (values("fisher") < np.pi**2 / 6)).all()
    assert ((values("entropy") > 0) & (values("entropy") < np.log(2))).all()
    # A box says most of what there is to say about a compact structure.
    assert (values("agreement") > 0.5).all()
    assert (values("effective-rank") >= 1).all()
    # Mask normalisation brings the whole foreground to variance 1 (the two classes together).
    assert ((values("variance") > 0.1) & (values("variance") < 3)).all()


def test_the_most_uncertain_cases_are_dropped(chain):
    auv = {row["case"]: row["auv"] for row in read_table(chain / "S.csv", SCORES) if row["class_id"] is None}
    kept = {row["case"]: row["keep"] for row in read_table(chain / "K.csv", KEEP_LIST)}
    assert set(kept) == set(auv)
    dropped = [case for case, keep in kept.items() if not keep]
    assert dropped == sorted(auv, key=lambda case: -auv[case])[: len(dropped)] or len(dropped) > 1
    assert 1 <= len(dropped) <= 2
    assert min(auv[case] for case in dropped) > max(auv[case] for case, keep in kept.items() if keep)


def test_training_left_the_dropped_cases_out(chain):
    kept = {row["case"]: row["keep"] for row in read_table(chain / "K.csv", KEEP_LIST)}
    splits = [json.loads(path.read_text()) for path in chain.rglob("splits_final.json")]
    assert splits
    used = splits[0][-1]
    assert set(used["train"]) <= {case for case, keep in kept.items() if keep}
    assert len(used["val"]) >= 1


def test_the_test_cases_are_measured(chain):
    rows = read_table(chain / "M.csv", METRICS)
    assert len({row["case"] for row in rows}) == N_TEST
    assert all(row["dice"] is None or 0 <= float(row["dice"]) <= 1 for row in rows)


def _subset(source: Path, destination: Path) -> Path:
    """A raw data set of the first cases, with test images and labels; scans are copied, not linked."""
    record = json.loads((source / "dataset.json").read_text())
    for images, labels, n_cases in (("imagesTr", "labelsTr", N_TRAINING), ("imagesTs", "labelsTs", N_TEST)):
        (destination / images).mkdir(parents=True)
        (destination / labels).mkdir()
        for label in sorted((source / labels).glob("hippocampus_*.nii.gz"))[:n_cases]:
            shutil.copy(label, destination / labels)
            shutil.copy(source / images / label.name.replace(".nii.gz", "_0000.nii.gz"), destination / images)
    (destination / "dataset.json").write_text(json.dumps(record | {"numTraining": N_TRAINING}))
    return destination
