"""The contact sheet of activation maps: unchanged images, boxes in place, findings evenly chosen."""

import numpy as np
from PIL import Image, ImageColor

from c2l_models.sheets import ACCENT
from c2l_models.training.inspection.cam_sheet import (
    BETWEEN,
    GAP,
    LINE,
    MARGIN,
    OPACITY,
    TILE,
    TITLE,
    choose_findings,
    draw_cams,
)
from c2l_models.training.inspection.cams import BoxedFinding, Cam


def boxed(finding, box=(0.25, 0.5, 0.75, 1.0), row=0):
    return BoxedFinding(row, finding, np.array([box]))


def test_findings_take_turns_and_no_film_is_there_twice():
    many = [boxed(name) for name in ["Mass"] * 20 + ["Nodule"] * 2 + ["Edema"]]
    chosen = choose_findings(many, 0, most=8)
    assert [many[i].finding for i in chosen] == ["Edema"] + ["Mass"] * 5 + ["Nodule"] * 2
    assert len(set(chosen)) == 8
    assert chosen == choose_findings(many, 0, most=8) != choose_findings(many, 1, most=8)
    assert len(choose_findings(many, 0, most=99)) == 23


def test_a_film_beside_its_map_and_box(store, tmp_path):
    cam = Cam(np.array([[2.0, 0.0], [0.0, 0.0]]), 0.07)
    draw_cams(tmp_path / "cams.png", store, [boxed("Mass", row=60)], [cam], "title")
    sheet = np.asarray(Image.open(tmp_path / "cams.png")).astype(int)
    top, left = MARGIN + TITLE + 2 * LINE + GAP, MARGIN
    film = np.asarray(Image.fromarray(store.images[60]).resize((TILE, TILE), Image.Resampling.BICUBIC)).astype(int)
    assert np.array_equal(sheet[top : top + TILE, left : left + TILE], np.stack([film] * 3, axis=2))

    tile = sheet[top : top + TILE, left + TILE + BETWEEN : left + 2 * TILE + BETWEEN]
    accent = np.array(ImageColor.getrgb(ACCENT))
    for y, x in [
        (104, 120),
        (104, 80),
        (150, 52),
        (150, 155),
    ]:  # box: x from 51.75 to 155.25, y from 103.5
        assert np.array_equal(tile[y, x], accent), (y, x)
    assert np.array_equal(tile[52, 48], [255, 255, 255])  # the cross, at a quarter of the side
    assert np.array_equal(tile[10, -10], [film[10, -10]] * 3)  # the minimum of the map is transparent
    most = np.array([252, 255, 164])  # the last shade of inferno
    np.testing.assert_allclose(tile[20, 20], (1 - OPACITY) * film[20, 20] + OPACITY * most, atol=1.5)


def test_a_flat_map_hides_nothing(store, tmp_path):
    draw_cams(tmp_path / "cams.png", store, [boxed("Mass", row=60)], [Cam(np.full((2, 2), 3.0), 0.5)], "title")
    sheet = np.asarray(Image.open(tmp_path / "cams.png")).astype(int)
    top, left = MARGIN + TITLE + 2 * LINE + GAP, MARGIN
    at = sheet[top + 20, left + TILE + BETWEEN + 150]
    assert np.array_equal(at, sheet[top + 20, left + 150])
