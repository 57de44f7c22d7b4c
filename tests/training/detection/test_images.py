"""Boxes in the coordinates of stored squares; missing images are counted, and errors name the label file's line."""

import shutil

import numpy as np
import pytest
from store_helpers import write_dicom

from c2l_models.errors import DatasetError
from c2l_models.training.detection.geometry import Square
from c2l_models.training.detection.images import CLIPPED, CUT_OFF, EMPTIED, MISSING, load_images

from .conftest import HEADER, SIDE, image_id, write_rows


def load(root, tmp_path, size=SIDE, **options):
    return load_images(root, tmp_path / "store", size, workers=1, progress=False, **options)


@pytest.fixture
def copy(challenge, tmp_path):
    return shutil.copytree(challenge, tmp_path / "copy")


def test_every_film_its_boxes_and_its_part(images):
    assert images.ids == [image_id(number) for number in range(16)]
    assert [len(boxes) for boxes in images.boxes] == [2, 0] + [1, 0] * 7
    np.testing.assert_array_equal(images.boxes[0], [[16, 40, 56, 88], [80, 40, 112, 80]])
    assert images.patients[3] == "chestxray14:00000001"
    assert set(images.of("training")) | set(images.of("evaluation")) == set(range(16))
    assert images.split == [(images.ids[i], images.parts[i]) for i in range(16)]
    assert not any(images.adjusted.values())


@pytest.mark.parametrize(("width", "height"), [(128, 128), (192, 128), (128, 160)])
def test_a_box_covers_the_same_film_in_the_store(copy, tmp_path, width, height):
    """In a square of twice the resolution, the box still covers the image's bright square."""
    image = np.full((height, width), 30, np.uint8)
    image[48:96, 60:92] = 230
    write_dicom(copy / "stage_2_train_images" / f"{image_id(1)}.dcm", image)
    rows = (
        (copy / "stage_2_train_labels.csv").read_text().replace(f"{image_id(1)},,,,,0", f"{image_id(1)},60,48,32,48,1")
    )
    (copy / "stage_2_train_labels.csv").write_text(rows)
    images = load(copy, tmp_path, 256)
    [box] = images.boxes[1]
    bright = images.store[[int(images.rows[1])]][0, 0].numpy() > 130
    across, down = np.flatnonzero(bright.any(axis=0)), np.flatnonzero(bright.any(axis=1))
    np.testing.assert_allclose(box, [across[0], down[0], across[-1] + 1, down[-1] + 1], atol=1)
    np.testing.assert_allclose(images.squares[1].outward(box[None]), [[60, 48, 32, 48]])


def test_a_square_there_and_back():
    square = Square(3000, 2000, 512)
    boxes = np.array([[700.0, 100, 300, 200]])
    np.testing.assert_allclose(square.inward(boxes), [[51.2, 25.6, 128, 76.8]])  # (700 - 500) x 0.256 …
    np.testing.assert_allclose(square.outward(square.inward(boxes)), boxes)


def test_images_that_are_missing_or_broken_are_counted_and_keep_their_part(copy, images, tmp_path):
    (copy / "stage_2_train_images" / f"{image_id(2)}.dcm").unlink()
    (copy / "stage_2_train_images" / f"{image_id(5)}.dcm").write_bytes(b"no image")
    found = load(copy, tmp_path)
    assert found.adjusted[MISSING] == 2
    assert found.ids == [name for name in images.ids if name not in (image_id(2), image_id(5))]
    assert found.split == images.split


def test_boxes_over_the_edge_and_beyond_the_square(copy, tmp_path):
    write_dicom(copy / "stage_2_train_images" / f"{image_id(3)}.dcm", np.full((64, 192), 9, np.uint8))
    write_dicom(copy / "stage_2_train_images" / f"{image_id(5)}.dcm", np.full((64, 192), 9, np.uint8))
    table = copy / "stage_2_train_labels.csv"
    text = table.read_text().replace(f"{image_id(1)},,,,,0", f"{image_id(1)},-20,100,50,90,1")
    text = text.replace(f"{image_id(3)},,,,,0", f"{image_id(3)},70,8,32,32,1\n{image_id(3)},0,0,40,40,1")
    table.write_text(text.replace(f"{image_id(5)},,,,,0", f"{image_id(5)},0,0,40,40,1"))
    found = load(copy, tmp_path)
    np.testing.assert_allclose(found.boxes[1], [[0, 100, 30, 128]])
    np.testing.assert_allclose(found.boxes[3], [[12, 16, 76, 80]])  # 64 to 128 of 192 are kept, twice as large
    assert image_id(5) not in found.ids
    assert (found.adjusted[CLIPPED], found.adjusted[CUT_OFF], found.adjusted[EMPTIED]) == (1, 2, 1)


@pytest.mark.parametrize("row", ["128,0,10,10,1", "-10,0,10,10,1", "0,900,30,30,1", "nan,0,10,10,1"])
def test_a_box_outside_its_image_is_told_with_its_line(copy, tmp_path, row):
    table = copy / "stage_2_train_labels.csv"
    table.write_text(table.read_text().replace(f"{image_id(1)},,,,,0", f"{image_id(1)},{row}"))
    with pytest.raises(
        DatasetError, match=r"train_labels\.csv.*: expected a box within its image of 128 x 128 pixels, found one at"
    ):
        load(copy, tmp_path)
    if "nan" not in row:
        with pytest.raises(DatasetError, match=r"train_labels\.csv, line 4: expected a box"):
            load(copy, tmp_path)


def test_what_cannot_be_trained_on_is_told(copy, tmp_path):
    table = copy / "stage_2_train_labels.csv"
    with pytest.raises(DatasetError, match="found all 8 among those to avoid"):
        load(copy, tmp_path, avoid=frozenset(f"chestxray14:{i:08}" for i in range(8)))
    write_rows(table, ["patientId", "left", "y", "width", "height", "Target"])
    with pytest.raises(DatasetError, match=r"train_labels\.csv has no column x among its 6"):
        load(copy, tmp_path)
    write_rows(table, HEADER, *([image_id(number), "", "", "", "", 0] for number in range(16)))
    with pytest.raises(DatasetError, match="expected a box in the training part, found none"):
        load_images(copy, tmp_path / "other", SIDE, workers=1, progress=False)
