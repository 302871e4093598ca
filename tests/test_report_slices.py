"""Pictures of slices: which, of what region, and that outlines lie where the label does."""

import io

import numpy as np
import pytest
from features import case_features, random_maps
from phantoms import write_raw_dataset, write_volume
from PIL import Image

from auvtool.case_features import FeatureHeader
from auvtool.dataset import open_dataset
from auvtool.errors import InputError
from auvtool.feature_store import FeatureFile
from auvtool.feature_writer import assemble, case_shard
from auvtool.report.page import ClassScore, ScoredCase
from auvtool.report.slices import SIDES, Sources, case_pictures, grey_picture, outlines

CLASSES = ((1, "large"), (2, "small"))


def scored(case_id="case_00", *, reason="", auv=(0.2, 0.8)):
    classes = tuple(
        ClassScore(class_id, name, "ok", 1.0, value, 1.0, 1)
        for (class_id, name), value in zip(CLASSES, auv, strict=True)
    )
    return ScoredCase(case_id, "ok", 1.0, 0.5, 1, 1.0, 1, reason, None, None, classes)


@pytest.fixture
def dataset(tmp_path):
    """One case of 6 x 40 x 60 voxels of 5 x 1 x 2 mm; `large` is a box and a voxel apart from it, `small` a box."""
    folder = write_raw_dataset(tmp_path / "Dataset001_One", n_cases=1, shape=(6, 40, 60), spacing_mm=(5.0, 1.0, 2.0))
    label = np.zeros((6, 40, 60), dtype=np.uint8)
    label[1:3, 10:20, 20:30] = 1
    label[2, 20:22, 20:30] = 1
    label[4, 3, 3] = 1
    label[3, 30:34, 40:44] = 2
    write_volume(folder / "labelsTr" / "case_00.nii.gz", label, spacing_mm=(5.0, 1.0, 2.0))
    return folder


def pictures(dataset, case, *, limit=4, features=None, **options):
    return case_pictures(case, Sources(open_dataset(dataset), features, 0, SIDES[0]), limit=limit, **options)


def test_the_classes_that_matter_come_first(dataset):
    assert [p.title.split(",")[0] for p in pictures(dataset, scored())] == ["small", "large", "large"]
    assert [p.title.split(",")[0] for p in pictures(dataset, scored(), certain=True)] == ["large", "large", "small"]
    named = scored(reason="shape: holes of large z +4.0; boundary: edge of other z +2.0")
    assert [p.title.split(",")[0] for p in pictures(dataset, named)] == ["large", "large", "small"]
    assert len(pictures(dataset, scored(), limit=2)) == 2


def test_the_largest_area_and_the_piece_apart_are_shown(dataset):
    _, largest, apart = pictures(dataset, scored())
    assert largest.title == "large, slice 3 of 6"
    assert largest.caption.startswith("where the class is largest; black at ")
    assert apart.title == "large, slice 5 of 6"
    assert apart.caption.startswith("a piece apart: 1 of 221 voxels, 2 pieces")


def test_a_picture_keeps_the_proportions_of_millimetres(dataset):
    _, largest, _ = pictures(dataset, scored())
    with Image.open(io.BytesIO(largest.image)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (largest.width, largest.height))
    assert max(largest.width, largest.height) == SIDES[0]
    # The class is 20 mm wide and 12 mm high; with a margin of 12 mm 44 mm are shown, 40 of them are there in rows.
    assert largest.height / largest.width == pytest.approx(40 / 44, abs=0.01)


def test_an_outline_runs_along_the_edges_of_the_voxels():
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 4:12] = True
    ((*points, last),) = outlines(mask, (200, 100))
    x, y = np.array(points).T
    assert last == points[0]
    # 10 pixels a voxel; corners are cut half a voxel short by the contour, sides are where the edge is.
    assert (x.min(), x.max()) == (40.0, 120.0)
    assert (y.min(), y.max()) == (20.0, 50.0)
    assert outlines(np.zeros((4, 4), dtype=bool), (40, 40)) == ()
    ((*border, _),) = outlines(np.ones((4, 4), dtype=bool), (40, 40))
    assert np.array(border).max() == 40.0  # what touches the edge of the picture is closed there


def test_black_and_white_are_percentiles_and_a_flat_slice_has_a_picture():
    plane = np.arange(1000.0).reshape(20, 50)
    _, low, high = grey_picture(plane, (50, 20))
    assert (low, high) == pytest.approx(np.percentile(plane, (0.5, 99.5)))
    jpeg, *_ = grey_picture(np.full((5, 5), 7.0), (50, 50))
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.getextrema() == (0, 0)


def test_greys_are_those_of_the_surroundings_of_the_class(dataset):
    image = np.zeros((6, 40, 60), dtype=np.float32)
    image[:, 10:24, 20:30] = 100.0
    image[:, 38:, 58:] = 5000.0  # far off, and no part of what is shown of the class
    write_volume(dataset / "imagesTr" / "case_00_0000.nii.gz", image, spacing_mm=(5.0, 1.0, 2.0))
    *_, largest, _ = pictures(dataset, scored())
    assert largest.caption == "where the class is largest; black at 0, white at 100"
    with Image.open(io.BytesIO(largest.image)) as picture:
        assert picture.getextrema() == (0, 255)


def test_the_same_case_gives_the_same_bytes(dataset):
    assert pictures(dataset, scored()) == pictures(dataset, scored())


def test_the_map_of_the_slice_stands_beside_it(dataset, tmp_path):
    header = FeatureHeader("identity", "1", None, "mask-box", "raw", "Dataset001_One", CLASSES)
    shard = tmp_path / "part"
    # On a grid half as fine as the slice's: bright where the box of the class is.
    logits = np.full((2, 20, 30), -5.0, dtype=np.float32)
    logits[:, 5:11, 10:15] = 5.0
    with case_shard(shard, header, "case_00", inputs="") as writer:
        writer.add_map(1, logits, np.array([0, 1]))
        writer.finish(case_features("case_00", random_maps(0), classes=CLASSES))
    assemble({"case_00": shard}, tmp_path / "F.h5", header, force=True)
    with FeatureFile(tmp_path / "F.h5") as file:
        small, large, apart = pictures(dataset, scored(), features=file)
    assert small.map_image is None
    assert apart.map_image is None  # slice 5 was not decoded
    # Of the decoded slices 1 and 2 the second one holds more of the class, though slice 3 holds the most.
    assert large.title == "large, slice 2 of 6"
    assert large.map_caption == "decoded map (logits), dark -5 to bright 5"
    with Image.open(io.BytesIO(large.map_image)) as image:
        assert image.size == (large.width, large.height)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    inside = np.array(large.outline[0]).mean(axis=0).round().astype(int)
    yellow, violet = pixels[inside[1], inside[0]], pixels[2, 2]
    assert yellow[0] > 200 > 100 > violet[0]
    assert yellow[2] < 100


def test_a_case_of_another_data_set_is_refused(dataset):
    with pytest.raises(InputError, match="Dataset001_One: expected the scored case case_77, got none of that id"):
        pictures(dataset, scored("case_77"))
    with pytest.raises(InputError, match="expected the image channel 3"):
        case_pictures(scored(), Sources(open_dataset(dataset), None, 3), limit=1)
