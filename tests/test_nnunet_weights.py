"""What --weights of the extractor nnunet may name, and what follows from it."""

import json
import shutil
from pathlib import Path

import pytest
from model_inputs import model_input
from nnunet_runs import architecture, extractor_of, facts, plans_of, write_run
from pickled_code import Touch
from training_phantoms import ball

from auvtool.errors import InputError
from auvtool.extractors.nnunet import TrainedNnUNet
from auvtool.extractors.weights import find_weights


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("plain") / "RUN", plans_of())


def test_facts_follow_from_the_weights(trained, tmp_path):
    found = facts(trained.request.run)
    assert found.class_names == found.channels_without_prompt == ("organ", "lesion")
    assert (found.n_features, found.prompts) == (8, ("class-name", "none"))
    penultimate = facts(trained.request.run, feature="penultimate")
    assert penultimate.prompts == ("none",)
    assert penultimate.channels_without_prompt == tuple(f"feature_{number}" for number in range(1, 9))


def test_a_folder_stands_for_its_first_finished_fold_and_plans_count_as_weights(plain, tmp_path):
    run = shutil.copytree(plain, tmp_path / "RUN")
    shutil.copytree(run / "fold_0", run / "fold_1")
    (run / "fold_1/checkpoint_final.pth").rename(run / "fold_1/checkpoint_best.pth")
    digest = find_weights(facts(run), run).sha256
    for same in (run / "fold_0/checkpoint_final.pth", run / "fold_1/checkpoint_best.pth", plain):
        assert find_weights(facts(same), same).sha256 == digest
    plans = json.loads((run / "plans.json").read_text())
    plans["configurations"]["net"]["spacing"] = [2.0, 1.0, 1.0]
    (run / "plans.json").write_text(json.dumps(plans))
    assert find_weights(facts(run), run).sha256 != digest


def test_a_checkpoint_that_would_run_code_is_refused_unless_it_is_trusted(tmp_path):
    def evil(checkpoint):
        checkpoint["logging"] = Touch(tmp_path / "ran")

    run = write_run(tmp_path / "RUN", plans_of(), change=evil)
    for step in (facts, extractor_of):
        with pytest.raises(InputError, match="expected a checkpoint of tensors and plain values, got objects of"):
            step(run)
    assert not (tmp_path / "ran").exists()
    extractor_of(run, trust_checkpoint=True)
    assert (tmp_path / "ran").exists()


def use(run: Path) -> TrainedNnUNet:
    """As `extract` does it."""
    facts(run)
    return extractor_of(run)


def plans_with(**changes):
    plans = plans_of()
    plans["configurations"]["net"] |= changes
    return plans


def another_layer(checkpoint):
    weights = checkpoint["network_weights"]
    checkpoint["network_weights"] = {name.replace("seg_layers", "heads"): one for name, one in weights.items()}


@pytest.mark.parametrize(
    ("plans", "change", "message"),
    [
        (plans_of(), another_layer, r"checkpoint_final\.pth: expected a network that ends in .*decoder\.seg_layers"),
        (plans_of(network=architecture("ResidualEncoderUNet")), "plain", r"weights of the network in plans\.json"),
        (plans_with(previous_stage="low"), None, "stands alone, got a cascade"),
        (plans_of(reader="MyReader"), None, r"plans\.json: expected image_reader_writer .* got MyReader"),
    ],
    ids=["last layer", "weights", "cascade", "reader"],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, plain, plans, change, message):
    run = write_run(tmp_path / "RUN", plans, change=change if callable(change) else lambda _: None)
    if change == "plain":
        shutil.copy(plain / "fold_0/checkpoint_final.pth", run / "fold_0/checkpoint_final.pth")
    with pytest.raises(InputError, match=message) as caught:
        use(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["os.system", "no.such.Network"])
def test_plans_that_name_no_network_are_refused_and_nothing_is_called(tmp_path, name):
    run = write_run(tmp_path / "RUN", plans_of())
    plans = plans_of(network={**architecture(), "network_class_name": name})
    (run / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match=r"plans\.json: expected plans that describe the network"):
        extractor_of(run)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerNoDeepSupervision"])
def test_plans_whose_layer_is_a_command_are_refused_and_it_does_not_run(tmp_path, trainer):
    run = write_run(tmp_path / "RUN", plans_of(), change=lambda checkpoint: checkpoint.update(trainer_name=trainer))
    plans = plans_of()
    layers = plans["configurations"]["net"]["architecture"]["arch_kwargs"]
    layers |= {"nonlin": "os.mkdir", "nonlin_kwargs": {"path": str(tmp_path / "ran")}}
    (run / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match=r"plans\.json: expected plans .* got 'ValueError: nonlin os\.mkdir") as caught:
        extractor_of(run)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("weights", [[1], None, {}, {1: 2}, {"decoder.seg_layers.1.weight": 3}])
def test_weights_that_are_none_are_refused_in_one_line(tmp_path, weights):
    run = write_run(tmp_path / "RUN", plans_of(), change=lambda checkpoint: checkpoint.update(network_weights=weights))
    with pytest.raises(InputError, match=r"checkpoint_final\.pth: expected weights by name under network_weights"):
        facts(run)


@pytest.mark.parametrize("where", [".", "fold_0", "fold_0/checkpoint_best.pth"])
def test_what_is_no_finished_run_is_refused(tmp_path, plain, where):
    if where != ".":
        shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"plans\.json|checkpoint_best\.pth: expected a results folder"):
        facts(tmp_path / where)


def test_another_number_of_channels_is_said(tmp_path):
    extractor = extractor_of(write_run(tmp_path / "RUN", plans_of(n_channels=2)))
    with pytest.raises(InputError, match="expected 2 channels"):
        next(extractor.decode(model_input(ball(0)[0], None, ())))
