"""The CLIP-Driven Universal Model on volumes; the oracle is MONAI's own chain of transforms, as its authors use it."""

import weakref
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from command_line import auvtool
from model_inputs import model_input
from model_weights import random_weights
from typer.testing import CliRunner

from auvtool.cli.app import app
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.extractors import ModelInput, load_extractor
from auvtool.extractors import clip_driven as module
from auvtool.extractors.class_prompts import prompts_of_classes
from auvtool.extractors.clip_driven import ClipDriven, foreground_box, model_intensities, names_of_ours
from auvtool.extractors.clip_driven_organs import ALIASES, ORGANS
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.model_options import ModelOptions
from auvtool.feature_store import FeatureFile
from auvtool.volume import view_as_slices

LIVER, KIDNEYS, THING = (
    SemanticClass(1, "liver", (1,)),
    SemanticClass(2, "kidneys", (2, 3)),
    SemanticClass(3, "x", (4,)),
)
PROMPTS = {"liver": "Liver", "kidneys": "Right Kidney", "x": "Liver"}
HEAD = {
    "precls_conv.0.weight": (48,),
    "precls_conv.0.bias": (48,),
    "precls_conv.2.weight": (8, 48, 1, 1, 1),
    "precls_conv.2.bias": (8,),
    "GAP.0.weight": (768,),
    "GAP.0.bias": (768,),
    "GAP.3.weight": (256, 768, 1, 1, 1),
    "GAP.3.bias": (256,),
    "controller.weight": (153, 512, 1, 1, 1),
    "controller.bias": (153,),
    "text_to_vision.weight": (256, 512),
    "text_to_vision.bias": (256,),
    "organ_embedding": (32, 512),
}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights under the names that the authors' files have."""
    from monai.networks.nets import SwinUNETR

    own = SwinUNETR(in_channels=1, out_channels=1, feature_size=48).state_dict()
    backbone = {name: tensor for name, tensor in own.items() if not name.startswith("out.")}
    index = {name: tensor for name, tensor in backbone.items() if name.endswith("relative_position_index")}
    shapes = {name: tuple(t.shape) for name, t in backbone.items() if name not in index} | HEAD
    return {f"module.{name}": tensor for name, tensor in (random_weights(shapes) | index).items()}


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip_driven") / "swin.pth"
    torch.save({"net": state, "optimizer": {"lr": 1e-4}, "scheduler": {"step": 3}, "epoch": 9}, path)
    return path


class StandIn:
    """A network that is quick to run and sees where in its window a voxel lies."""

    def __init__(self) -> None:
        self.organs: list[list[int]] = []

    def __call__(self, windows: torch.Tensor, organs: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        self.organs.append(organs)
        place = torch.linspace(0, 1, windows.shape[-1])
        features = [windows * (one + 1) + place for one in range(8)]
        logits = [windows * place - organ / 100 for organ in organs]
        return torch.cat(features + logits, dim=1), windows[:, :, ::8, ::8, ::8]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ClipDriven:
    monkeypatch.setattr(module, "_WINDOW", (24, 24, 24))
    return ClipDriven(StandIn(), PROMPTS, torch.device("cpu"))


def ct_case(*, classes: tuple[SemanticClass, ...] = (), with_label: bool = True) -> tuple[ModelInput, np.ndarray]:
    """A case of HU in a sagittal order of axes, and the affine of its files."""
    random = np.random.default_rng(0)
    voxels = random.normal(scale=150, size=(30, 26, 40)).astype(np.float32)
    voxels[:, :, :9] = -1000  # air on one side
    label = np.zeros(voxels.shape, dtype=np.int16)
    label[4:15, 5:20, 12:30], label[20:26, 3:9, 20:30], label[20:26, 15:21, 31:34] = 1, 2, 3
    affine = np.array([[0, 0, 1.1, 4], [-1.7, 0, 0, 5], [0, 1.3, 0, 6], [0, 0, 0, 1.0]])
    (image, label_slices), geometry = view_as_slices(np.stack([voxels, label]), affine)
    image = np.ascontiguousarray(image)
    label_slices = np.ascontiguousarray(label_slices).astype(np.int16) if with_label else None
    slices = np.arange(len(image))
    case = ModelInput(image, label_slices, classes, slices, channels=image[None], geometry=geometry, normalised=False)
    return case, affine


def by_monai(case: ModelInput, organs: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Maps and label of a case on the model's grid in RAS, by MONAI alone."""
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import Compose, CropForegroundd, Orientationd, ScaleIntensityRanged, Spacingd

    keys, affine = ["image", "label"], torch.tensor(case.geometry.affine, dtype=torch.float64)
    chain = Compose(
        [
            Orientationd(keys, "RAS", labels=None),
            Spacingd(keys, (1.5, 1.5, 1.5), mode=("bilinear", "nearest"), dtype=np.float64),
            ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
            CropForegroundd(keys, "image", allow_smaller=True),
        ]
    )
    arrays = {"image": case.image, "label": np.zeros_like(case.image) if case.label is None else case.label}
    found = chain({key: MetaTensor(torch.from_numpy(a[None].astype(np.float64)), affine) for key, a in arrays.items()})
    maps = sliding_window_inference(
        found["image"].as_tensor().float()[None], (24, 24, 24), 1, lambda x: StandIn()(x, organs)[0], 0.5, "gaussian"
    )
    return maps[0].numpy(), found["label"].numpy()[0].astype(int)


def in_ras(case: ModelInput, values: np.ndarray) -> np.ndarray:
    orientation = nibabel.orientations.io_orientation(np.asarray(case.geometry.affine))
    return nibabel.orientations.apply_orientation(values, orientation)


def test_a_case_goes_the_way_of_the_authors(stand_in) -> None:
    case, _ = ct_case(classes=(LIVER, KIDNEYS))
    liver, kidneys = stand_in.decode(case)
    maps, label = by_monai(case, [1, 5])
    assert stand_in.network.organs[0] == [1, 5]  # those asked for, and no other
    for channel, logits, values in ((liver, maps[9], (1,)), (kidneys, maps[8], (2, 3))):
        region = np.isin(label, values)
        np.testing.assert_allclose(in_ras(case, channel.logits), logits, atol=1e-5)
        np.testing.assert_array_equal(in_ras(case, channel.region), region)
        assert channel.slices.tolist() == list(range(len(channel.logits)))
        inside = maps[:8, region].astype(np.float64)
        np.testing.assert_allclose(channel.features.mean(), inside.mean(axis=1), atol=1e-5)
        found = channel.agreement
        assert found.dice == pytest.approx(2 * ((logits > 0) & region).sum() / ((logits > 0).sum() + region.sum()))
        assert found.iou == pytest.approx(found.dice / (2 - found.dice))
        assert found.log_ratio == pytest.approx(np.log((1 + (logits > 0).sum()) / (1 + region.sum())))
        assert np.isnan(found.loose_dice)
        np.testing.assert_array_equal(channel.image_features, liver.image_features)
    assert liver.image_features.shape == (2,)


def test_without_a_label_maps_are_of_the_whole_volume(stand_in) -> None:
    case, _ = ct_case(classes=(LIVER, KIDNEYS, THING), with_label=False)
    channels = list(stand_in.decode(case))
    maps, _ = by_monai(case, [1, 5])
    for channel, logits in zip(channels, maps[[9, 8, 9]], strict=True):
        np.testing.assert_allclose(in_ras(case, channel.logits), logits, atol=1e-5)
        assert channel.region is None
        np.testing.assert_allclose(channel.features.mean(), maps[:8].reshape(8, -1).mean(axis=1), atol=1e-4)


def test_without_prompts_there_are_32_maps(stand_in) -> None:
    case, _ = ct_case(with_label=False)
    channels = list(stand_in.decode(case))
    maps, _ = by_monai(case, list(range(32)))
    assert len(channels) == 32 == len(EXTRACTORS["clip-driven"].channels_without_prompt)
    for channel, logits in zip(channels, maps[8:], strict=True):
        np.testing.assert_allclose(in_ras(case, channel.logits), logits, atol=1e-5)
        assert channel.features.n_voxels == maps[0].size


def test_a_class_that_is_not_there_is_absent_and_a_tiny_one_is_not_lost(stand_in) -> None:
    case, _ = ct_case(classes=(THING, KIDNEYS))
    case.label[:] = 0
    assert [channel.logits for channel in stand_in.decode(case)] == [None, None]
    assert stand_in.network.organs == []  # nothing was run for nothing
    fine = np.zeros((30, 30, 30), dtype=np.int16)
    fine[7, 4, 11] = 3
    thing, kidneys = stand_in.decode(model_input(fine + 100.0, fine, case.classes, spacing_mm=(0.5, 0.5, 0.5)))
    assert thing.logits is None
    assert kidneys.region.sum() == 1


def test_regions_of_many_classes_do_not_stand_in_memory_together(stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = ct_case(classes=(LIVER, KIDNEYS) * 4)
    made, alive = [], []

    def noted(one, **options):
        region = region_of(one, **options)
        made.append(weakref.ref(region))
        alive.append(sum(ref() is not None for ref in made))
        return region

    region_of = module._region
    monkeypatch.setattr(module, "_region", noted)
    assert len([channel.logits for channel in stand_in.decode(case)]) == 8
    assert len(made) == 16
    assert max(alive) <= 3  # the one before, and what is handed out


def test_normalised_intensities_span_the_range(stand_in) -> None:
    values = np.array([-175.0, 37.5, 250, -2000, 4000], dtype=np.float32).reshape(5, 1, 1)
    np.testing.assert_allclose(model_intensities(values, normalised=False).ravel(), [0, 0.5, 1, 0, 1])
    scores = np.array([-3.0, 0, 1], dtype=np.float32).reshape(3, 1, 1)
    np.testing.assert_allclose(model_intensities(scores, normalised=True).ravel(), [0, 0.75, 1])
    flat = np.full((2, 2, 2), 9.0, dtype=np.float32)
    assert (model_intensities(flat, normalised=True) == 0).all()
    assert model_intensities(values, normalised=False).dtype == np.float32
    case = model_input(flat, np.ones((2, 2, 2), dtype=np.int16), (LIVER,), normalised=True)
    (liver,) = stand_in.decode(case)
    assert liver.logits is not None


def test_the_box_around_the_foreground() -> None:
    volume = np.zeros((4, 5, 6))
    assert volume[foreground_box(volume)].shape == (4, 5, 6)
    volume[1, 2, 3] = volume[2, 2, 5] = 0.1
    assert foreground_box(volume) == (slice(1, 3), slice(2, 3), slice(3, 6))


def test_official_names_are_loaded(weights, state) -> None:
    extractor = load_extractor("clip-driven", ModelOptions(weights=weights), device="cpu")
    assert isinstance(extractor, ClipDriven)
    own = extractor.network.state_dict()
    assert len(own) == len(state)
    assert torch.equal(
        own["backbone.decoder1.conv_block.conv1.conv.weight"], state["module.decoder1.conv_block.conv1.conv.weight"]
    )
    assert torch.equal(own["organ_embedding"], state["module.organ_embedding"])
    assert not extractor.network.training


def test_prefixes_of_both_kinds_are_stripped(state) -> None:
    expected = names_of_ours(state, Path("w.pth"))
    bare = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    assert names_of_ours(bare, Path("w.pth")).keys() == expected.keys()
    assert names_of_ours(expected, Path("w.pth")).keys() == expected.keys()
    assert names_of_ours({f"module.{name}": one for name, one in expected.items()}, Path("w")).keys() == expected.keys()


def test_other_weights_are_refused_in_one_line(tmp_path: Path, state) -> None:
    path = tmp_path / "w.pth"
    refused = {
        "those with a U-Net": {"module.backbone.down_tr64.ops.0.conv1.weight": torch.zeros(1)},
        "1 weights missing, such as GAP.3.bias": {k: t for k, t in state.items() if k != "module.GAP.3.bias"},
        "1 weights of another shape, such as controller.bias": state | {"module.controller.bias": torch.zeros(9)},
    }
    for found, content in refused.items():
        torch.save({"net": content}, path)
        with pytest.raises(InputError, match="with a Swin-UNETR, got " + found) as caught:
            load_extractor("clip-driven", ModelOptions(weights=path), device="cpu")
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    torch.save({"net": {"a": torch.ones(1)}, "epoch": SimpleNamespace(n=1)}, path)
    with pytest.raises(InputError, match=r"got objects of types\.SimpleNamespace"):
        load_extractor("clip-driven", ModelOptions(weights=path), device="cpu")
    with pytest.raises(UsageError, match="CLIP-Driven-Universal-Model"):
        load_extractor("clip-driven", ModelOptions(), device="cpu")


def test_without_monai_it_says_what_to_install(weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'auvtool\[monai\]'"):
        load_extractor("clip-driven", ModelOptions(weights=weights), device="cpu")


def test_names_of_public_data_sets_are_known() -> None:
    facts = EXTRACTORS["clip-driven"]
    assert len(set(ORGANS)) == 32
    assert {name for _, name in ALIASES} <= set(ORGANS)
    names = {
        "kidney_right": "Right Kidney",
        "inferior_vena_cava": "Postcava",
        "small_bowel": "Intestine",
        "gallbladder": "Gall Bladder",
        "Head_of_femur_L": "Left Head of Femur",
        "left_kidney": "Left Kidney",
        "portal_vein_and_splenic_vein": "Portal Vein and Splenic Vein",
        "urinary_bladder": "Bladder",
        "adrenal_gland_left": "Left Adrenal Gland",
        "LIVER": "Liver",
    }
    classes = tuple(SemanticClass(number, name, (number,)) for number, name in enumerate(names, start=1))
    assert dict(prompts_of_classes(classes, {}, facts.class_names, facts.class_aliases)) == names
    lobe = (SemanticClass(1, "lung_upper_lobe_left", (1,)),)
    with pytest.raises(UsageError, match="none for lung_upper_lobe_left"):
        prompts_of_classes(lobe, {}, facts.class_names, facts.class_aliases)


def test_real_cts_from_images_to_scores(
    real_data: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two crops of a TotalSegmentator CT, each one window."""
    monkeypatch.setattr(module, "_WINDOW", (64, 64, 64))
    source = real_data / "totalseg_examples"
    image, label = (nibabel.load(source / f"{name}.nii.gz") for name in ("example_ct_sm", "example_seg"))
    dataset = tmp_path / "Dataset001_Crops"
    for folder in ("imagesTr", "labelsTr"):
        (dataset / folder).mkdir(parents=True)
    for number, first in enumerate((68, 80)):
        box = np.s_[first : first + 24, 45:69, 4:28]
        values = np.asarray(label.dataobj)[box]
        organs = np.select([values == 5, values == 2, values == 4], [1, 2, 3]).astype(np.uint8)
        ct = np.asarray(image.dataobj)[box].astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(ct, image.affine), dataset / "imagesTr" / f"ct_{number}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(organs, image.affine), dataset / "labelsTr" / f"ct_{number}.nii.gz")
    (dataset / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "kidney_right": 2, "bile": 3}, '
        '"numTraining": 2, "file_ending": ".nii.gz"}'
    )
    prompts, features = tmp_path / "prompts.csv", tmp_path / "F.h5"
    prompts.write_text("class_name,prompt\nbile,gallbladder\n")
    words = ["extract", str(dataset), "-o", str(features), "--extractor", "clip-driven", "--weights", str(weights)]
    refused = CliRunner().invoke(app, words).exception
    assert isinstance(refused, UsageError)
    assert "got none for bile; give a table" in str(refused)
    done = CliRunner().invoke(app, [*words, "--prompts", str(prompts)])
    assert done.exit_code == 0, done.exception
    assert "non-commercial" in " ".join(done.stderr.split())
    assert '"notice": "clip-driven: code and weights' in (tmp_path / "F.h5.manifest.json").read_text()
    with FeatureFile(features) as file:
        assert file.header.prompt == "class-name"
        recorded = ModelOptions.of_record(file.header.options, weights=weights)
        assert dict(recorded.class_prompts) == {
            "liver": "Liver",
            "kidney_right": "Right Kidney",
            "bile": "Gall Bladder",
        }
        case = file.case("ct_0")
    assert case.status[0] == "ok"
    assert case.class_features.shape == (3, 8)
    assert 0 < case.agreement[0, 0] < 1
    scored = auvtool("score", features, "--preset", "official", "-o", tmp_path / "S.csv")
    assert scored.returncode == 0, scored.stderr
    rows = [line.split(",") for line in (tmp_path / "S.csv").read_text().splitlines()]
    values = {(row[0], row[2]): row[rows[0].index("value")] for row in rows[1:]}
    assert all(0 < float(values[case, "liver"]) < 1 for case in ("ct_0", "ct_1"))
