"""SegVol at a small size; the oracles are its equations again (`segvol_oracle`) and figures of the released code."""

import pickle
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import segvol_oracle
import torch
from command_line import auvtool
from model_inputs import model_input
from phantoms import write_raw_dataset
from pickled_code import RunsCode
from segvol_weights import BOX, FULL_SHAPES, SMALL, STATISTICS, drawn_image, drawn_state

from auvtool.case_extraction import ExtractionSettings
from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import map_bytes, plan_extraction
from auvtool.extractors import facts as facts_module
from auvtool.extractors import load_extractor, segvol
from auvtool.extractors.clip_tokens import ClipTokens
from auvtool.extractors.model_options import ModelOptions
from auvtool.extractors.segvol_grid import as_seen, box_around, coarser_region, model_grid
from auvtool.extractors.segvol_network import NOT_NEEDED, SegVolNetwork, SegVolSizes
from auvtool.feature_store import FeatureFile
from auvtool.quantification import read_cases
from auvtool.score_options import score_options
from auvtool.scoring import score_cases

SIZES = SegVolSizes(**SMALL)
LIVER, KIDNEY = SemanticClass(1, "Liver", (1,)), SemanticClass(2, "Kidney_R", (2,))
NOWHERE = SemanticClass(3, "spleen", (3,))
PROMPTS = (("Liver", "Liver"), ("Kidney_R", "right kidney"), ("spleen", "spleen"))
TEXT = "A computerized tomography of a right kidney."


@pytest.fixture(scope="module")
def network() -> SegVolNetwork:
    made = SegVolNetwork(SIZES)
    made.load_state_dict(made.own_names(drawn_state()), strict=True)
    return made.eval().requires_grad_(requires_grad=False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extractor has the small network's sizes."""
    monkeypatch.setattr(segvol, "_SIZES", SIZES)
    small_facts = replace(facts_module.EXTRACTORS["segvol"], n_features=SIZES.n_features)
    monkeypatch.setitem(facts_module.EXTRACTORS, "segvol", small_facts)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the authors' trainer writes it."""
    path = tmp_path_factory.mktemp("weights") / "SegVol_v1.pth"
    state = {f"module.{name}": tensor for name, tensor in drawn_state().items()}
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 3, "scheduler": {"last_epoch": 3}}, path)
    return path


def loaded(checkpoint: Path) -> segvol.SegVol:
    extractor = load_extractor("segvol", ModelOptions(weights=checkpoint, class_prompts=PROMPTS), device="cpu")
    assert isinstance(extractor, segvol.SegVol)
    return extractor


# The network


@torch.inference_mode()
def of_the_network(network: SegVolNetwork) -> dict[str, torch.Tensor]:
    embedding = network.encode_image(torch.from_numpy(drawn_image())[None, None])
    text = network.text_encoder(ClipTokens()(TEXT))
    made = {"embedding": embedding[0], "text vector": text}
    for name, box in (("text", None), ("text and box", torch.tensor([BOX], dtype=torch.float32))):
        logits, upscaled = network.decode(embedding, text[None], box)
        made |= {name: logits[0], f"{name}, upscaled": upscaled[0]}
    return made


def test_the_network_makes_what_the_released_code_makes(network: SegVolNetwork) -> None:
    made = of_the_network(network)
    assert set(made) == set(STATISTICS)
    for name, expected in STATISTICS.items():
        values = made[name].double().numpy().ravel()
        found = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
        assert found == pytest.approx({key: expected[key] for key in found}, abs=2e-5), name
        assert {at: values[int(at)] for at in expected["at"]} == pytest.approx(expected["at"], abs=2e-5), name


def test_the_network_is_its_equations(network: SegVolNetwork) -> None:
    weights = segvol_oracle.as_arrays(drawn_state())
    tokens = segvol_oracle.image_tokens(weights, drawn_image().astype(float), SIZES.patch, SIZES.depth, SIZES.heads)
    text = segvol_oracle.text_vector(weights, ClipTokens()(TEXT), SIZES.text_depth, SIZES.text_heads)
    made = of_the_network(network)
    np.testing.assert_allclose(made["embedding"].numpy().reshape(SIZES.width, -1).T, tokens, atol=1e-4)
    np.testing.assert_allclose(made["text vector"], text, atol=1e-4)
    for name, box in (("text", None), ("text and box", BOX)):
        logits, upscaled = segvol_oracle.decoded(
            weights, tokens, SIZES.places, SIZES.image, text, box, SIZES.decoder_heads
        )
        assert np.ptp(logits) > 3
        np.testing.assert_allclose(made[name], logits, atol=1e-4)
        np.testing.assert_allclose(made[f"{name}, upscaled"], upscaled, atol=1e-4)


def test_prompts_in_one_batch_are_as_one_by_one(network: SegVolNetwork) -> None:
    with torch.inference_mode():
        embedding = network.encode_image(torch.from_numpy(drawn_image())[None, None])
        texts = torch.stack([network.text_encoder(ClipTokens()(text)) for text in ("a", "b c", TEXT)])
        boxes = torch.tensor([BOX, (0, 0, 0, 15, 63, 63), (3, 3, 3, 3, 3, 3)], dtype=torch.float32)
        logits, upscaled = network.decode(embedding, texts, boxes)
        for index in range(3):
            alone = network.decode(embedding, texts[index : index + 1], boxes[index : index + 1])
            torch.testing.assert_close(alone[0][0], logits[index], rtol=0, atol=1e-5)
            torch.testing.assert_close(alone[1][0], upscaled[index], rtol=0, atol=1e-5)


def test_the_full_network_takes_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        full = SegVolNetwork(SegVolSizes())
        released = {f"module.{name}": torch.empty(shape) for name, shape in FULL_SHAPES.items()}
    taken = {name: tuple(tensor.shape) for name, tensor in full.own_names(released).items()}
    assert taken == {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
    left_out = [name for name in FULL_SHAPES if NOT_NEEDED.fullmatch(name)]
    assert len(taken) + len(left_out) == len(FULL_SHAPES) == 474
    assert sum(np.prod(shape) for shape in FULL_SHAPES.values()) == 180_891_216
    assert full.sizes.n_features == facts_module.EXTRACTORS["segvol"].n_features


# Checkpoints


def test_both_releases_of_the_weights_are_the_same_network(small: None, checkpoint: Path, tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in drawn_state().items()}
    positions = {"model.text_encoder.clip_text_model.text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(state | positions, tmp_path / "pytorch_model.bin")
    # Names of transformers 5, and the norm that MONAI has since it has cross attention.
    newer = {name.replace(".text_model.", "."): tensor for name, tensor in drawn_state().items()}
    newer |= {f"image_encoder.blocks.{n}.norm_cross_attn.weight": torch.ones(48) for n in (0, 1)}
    torch.save(newer, tmp_path / "newer.pth")
    expected = loaded(checkpoint)
    for path in (tmp_path / "pytorch_model.bin", tmp_path / "newer.pth"):
        found = loaded(path)
        for name, tensor in expected.network.state_dict().items():
            assert torch.equal(tensor, found.network.state_dict()[name])
        for name, _ in PROMPTS:
            assert torch.equal(expected._texts[name], found._texts[name])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"image_encoder.norm.weight": None}, "1 weights missing, such as image_encoder.norm.weight"),
        ({"image_encoder.conv.weight": (1,)}, "1 weights too many, such as image_encoder.conv.weight"),
        ({"mask_decoder.mask_tokens.weight": (3, 48)}, "1 weights of another shape, such as mask_decoder.mask_tokens"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(small: None, tmp_path: Path, change, found: str) -> None:
    state = drawn_state()
    for name, shape in change.items():
        if shape is None:
            del state[name]
        else:
            state[name] = torch.zeros(shape)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / "w.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'w.pth'}: expected SegVol's weights, got {found}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["code", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused(small: None, tmp_path: Path, capsys, kind: str) -> None:
    if kind == "code":
        torch.save({"model": drawn_state(), "optimizer": RunsCode()}, tmp_path / "w.pth")
    else:
        (tmp_path / "w.pth").write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


def test_without_weights_it_is_said_where_they_are() -> None:
    with pytest.raises(UsageError, match=r"--weights: expected a checkpoint, got none; get one \(SegVol_v1.pth"):
        load_extractor("segvol", ModelOptions(), device="cpu")


def test_a_text_that_is_too_long_is_named(small: None, checkpoint: Path) -> None:
    options = ModelOptions(weights=checkpoint, class_prompts=(("Liver", "liver " * 70),))
    with pytest.raises(UsageError, match=r"--prompts: expected texts of at most 77 tokens, got 81 for Liver; shorten"):
        load_extractor("segvol", options, device="cpu")


# A case


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A liver and a smaller kidney in a body in air, on 20 slices of 72 x 80."""
    d, h, w = np.mgrid[:20, :72, :80]
    label = np.zeros(d.shape, dtype=np.int16)
    label[(d - 9) ** 2 * 9 + (h - 34) ** 2 + (w - 26) ** 2 <= 300] = 1
    label[4:12, 40:52, 50:61] = 2
    body = (h - 36) ** 2 / 30**2 + (w - 40) ** 2 / 36**2 <= 1
    noise = np.random.default_rng(0).normal(scale=8, size=label.shape)
    return (np.where(body, 40.0, -1000.0) + 70 * (label == 1) + 130 * (label == 2) + noise).astype(np.float32), label


@pytest.fixture
def case():
    image, label = scene()
    return replace(model_input(image, label, (LIVER, NOWHERE, KIDNEY)), prompt="class-name")


@pytest.mark.parametrize("prompt", ["class-name", "mask-box"])
@pytest.mark.parametrize("at_once", [1, 8])
def test_channels_by_the_equations(small: None, checkpoint: Path, case, monkeypatch, prompt, at_once: int) -> None:
    monkeypatch.setattr(segvol, "_CLASSES_AT_ONCE", {"cpu": at_once})
    extractor = loaded(checkpoint)
    n_encoded = []
    extractor.network.image_encoder.register_forward_hook(lambda module, args, out: n_encoded.append(len(args[0])))
    liver, nowhere, kidney = extractor.decode(replace(case, prompt=prompt))
    assert n_encoded == [1]
    assert nowhere.logits is None
    assert nowhere.features.n_voxels == 0
    weights = segvol_oracle.as_arrays(drawn_state())
    volume = as_seen(case.image, case.geometry.affine)
    grid = model_grid(volume, SIZES.image)
    seen = grid.image(volume).astype(float)
    tokens = segvol_oracle.image_tokens(weights, seen, SIZES.patch, SIZES.depth, SIZES.heads)
    for channel, one, words in ((liver, LIVER, "Liver"), (kidney, KIDNEY, "right kidney")):
        ids = ClipTokens()(f"A computerized tomography of a {words}.")
        text = segvol_oracle.text_vector(weights, ids, SIZES.text_depth, SIZES.text_heads)
        region = grid.region(as_seen(case.label, case.geometry.affine), one.labels)
        box = box_around(region) if prompt == "mask-box" else None
        logits, upscaled = segvol_oracle.decoded(
            weights, tokens, SIZES.places, SIZES.image, text, box, SIZES.decoder_heads
        )
        np.testing.assert_allclose(channel.logits, logits, atol=2e-4)
        np.testing.assert_array_equal(channel.region, region)
        np.testing.assert_array_equal(channel.slices, np.arange(16))
        inside = upscaled[:, coarser_region(region, (16, 16, 16))]
        assert channel.features.n_voxels == inside.shape[1] > 0
        np.testing.assert_allclose(channel.features.mean(), inside.mean(axis=1), atol=1e-4)
        mask = channel.logits > 0
        both = (mask & region).sum()
        assert channel.agreement.dice == pytest.approx(2 * both / (mask.sum() + region.sum()))
        assert channel.agreement.iou == pytest.approx(both / (mask | region).sum())
        assert channel.agreement.log_ratio == pytest.approx(np.log((mask.sum() + 1) / (region.sum() + 1)))
        assert np.isnan(channel.agreement.predicted_iou)
        expected = np.concatenate([tokens.mean(axis=0), tokens.std(axis=0)])
        np.testing.assert_allclose(channel.image_features, expected, atol=1e-4)


def test_without_a_label_every_class_is_decoded_as_with_one(small: None, checkpoint: Path, case) -> None:
    extractor = loaded(checkpoint)
    liver, _, kidney = extractor.decode(case)
    blind = list(extractor.decode(replace(case, label=None)))
    assert [channel.region for channel in blind] == [None] * 3
    for channel, expected in ((blind[0], liver), (blind[2], kidney)):
        np.testing.assert_array_equal(channel.logits, expected.logits)
        assert np.isnan(list(vars(channel.agreement).values())).all()
        assert channel.features.n_voxels == 16**3
    assert np.abs(blind[1].logits - liver.logits).max() > 0.1  # the text is heard


def test_a_label_without_any_class_is_not_encoded(small: None, checkpoint: Path, case) -> None:
    extractor = loaded(checkpoint)
    extractor.network.image_encoder.register_forward_hook(lambda *given: pytest.fail("encoded"))
    nothing = replace(case, label=np.zeros_like(case.label), image=np.zeros_like(case.image))
    assert [channel.logits for channel in extractor.decode(nothing)] == [None] * 3


def test_turned_files_are_seen_alike(small: None, checkpoint: Path, case) -> None:
    extractor = loaded(checkpoint)
    affine = np.asarray(case.geometry.affine) @ np.diag([1, -1, -1, 1])
    turned = replace(
        case,
        image=case.image[:, ::-1, ::-1],
        label=case.label[:, ::-1, ::-1],
        geometry=replace(case.geometry, affine=tuple(map(tuple, affine))),
    )
    for one, other in zip(extractor.decode(case), extractor.decode(turned), strict=True):
        if one.logits is not None:
            np.testing.assert_array_equal(one.logits, other.logits)
            np.testing.assert_array_equal(one.region, other.region)


# A data set


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=3)


def plan_of(dataset: Path, checkpoint: Path, output: Path, **settings: object):
    model = ModelOptions(weights=checkpoint, class_prompts=settings.pop("class_prompts", ()))
    chosen = {"prompt": "class-name", "input": "raw"} | settings
    return plan_extraction(open_dataset(dataset), ExtractionSettings(extractor="segvol", model=model, **chosen), output)


@pytest.mark.parametrize("prompt", ["class-name", "mask-box"])
def test_names_are_asked_for_with_boxes_too(small: None, checkpoint: Path, dataset: Path, tmp_path, prompt) -> None:
    plan = plan_of(dataset, checkpoint, tmp_path / "F.h5", prompt=prompt, class_prompts=(("large", "the liver"),))
    assert plan.settings.model.class_prompts == (("large", "the liver"), ("small", "small"))
    assert plan.header.options["class_prompts"] == plan.settings.model.class_prompts
    assert ModelOptions.of_record(plan.header.options, weights=checkpoint) == plan.settings.model
    one = plan_of(dataset, checkpoint, tmp_path / "F.h5", prompt=prompt, class_prompts=(("large", ""),))
    assert one.header.channels == ((2, "small"),)
    recorded = ModelOptions.of_record(one.header.options, weights=checkpoint)
    again = plan_of(dataset, checkpoint, tmp_path / "F.h5", prompt=prompt, class_prompts=recorded.class_prompts)
    assert again.header == one.header


def test_what_it_does_not_take_is_refused(small: None, checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    for settings, words in (
        ({"prompt": "none"}, "--prompt: expected class-name or mask-box for segvol, got none"),
        ({"max_slices": 4}, "--max-slices: expected neither for segvol"),
        ({"prompt": "mask-box", "class_prompts": (("bone", "x"),)}, "got bone"),
    ):
        with pytest.raises(UsageError, match=words):
            plan_of(dataset, checkpoint, tmp_path / "F.h5", **settings)


def test_the_size_of_its_maps_is_known(small: None, checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    assert map_bytes(plan_of(dataset, checkpoint, tmp_path / "F.h5", store="maps")) == 3 * 2 * 4 * 32 * 256 * 256


def extracted(dataset: Path, checkpoint: Path, output: Path, **settings: object) -> None:
    result = run_extraction(plan_of(dataset, checkpoint, output, **settings))
    assert not result.failures


def test_a_class_left_out_is_not_asked_for(small: None, checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    extracted(dataset, checkpoint, tmp_path / "F.h5", class_prompts=(("large", ""),))
    with FeatureFile(tmp_path / "F.h5") as file:
        assert [case.class_names for case in read_cases(file)] == [("small",)] * 3


@pytest.mark.parametrize("settings", [{}, {"prompt": "mask-box"}, {"prompt": "mask-box", "input": "mask"}])
def test_a_data_set_is_extracted_and_scored(small: None, checkpoint: Path, dataset: Path, tmp_path, settings) -> None:
    extracted(dataset, checkpoint, tmp_path / "F.h5", **settings)
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.header.extractor == "segvol"
        cases = read_cases(file)
        assert [case.status for case in cases] == [("ok", "ok")] * 3
        assert all(case.class_features.shape == (2, SIZES.n_features) for case in cases)
        for quantifier in ("auv", "agreement", "deviation"):
            scores = score_cases(cases, file.header, score_options(quantifier)).whole_cases
            assert np.isfinite(scores.values).all()
            assert (scores.auv.min(), scores.auv.max()) == (0, 1)


def test_a_real_ct_end_to_end(small: None, checkpoint: Path, real_data: Path, tmp_path: Path) -> None:
    scans = real_data / "totalseg_examples"
    folder = tmp_path / "Dataset007_CT"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate([("example_ct_sm", "example_seg"), ("ct_cropped", "aorta")]):
        (folder / "imagesTr" / f"ct_{number}_0000.nii.gz").symlink_to(scans / f"{image}.nii.gz")
        read = nibabel.load(scans / f"{label}.nii.gz")
        values = np.asanyarray(read.dataobj)
        aorta = (values == (52 if label == "example_seg" else 1)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(aorta, read.affine), folder / "labelsTr" / f"ct_{number}.nii.gz")
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "aorta": 1}, "numTraining": 2, '
        '"file_ending": ".nii.gz"}'
    )
    extracted(folder, checkpoint, tmp_path / "F.h5")
    done = auvtool("score", tmp_path / "F.h5", "--quantifier", "auv", "-o", tmp_path / "S.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "S.csv").read_text().count(",aorta,ok,") == 2
