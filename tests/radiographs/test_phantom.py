"""The phantom: physics against rays computed by hand, anatomy by measurement, files by reading them back."""

import csv
import math
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2l_models.errors import C2LError, DatasetError
from c2l_models.radiographs.phantom import FINDINGS, Film, films, render, write_films
from c2l_models.radiographs.phantom.bodies import ATTENUATION, _cavity, _heart, thicknesses
from c2l_models.radiographs.phantom.exposure import transmission
from c2l_models.radiographs.phantom.patient import APEX_AXIS, Anatomy, Lesions
from c2l_models.radiographs.phantom.shapes import ellipsoid, tube

CM = np.arange(-18, 18, 0.1, dtype=np.float32)
X, Y = np.meshgrid(CM, CM)


@pytest.fixture(scope="module")
def archive() -> list[Film]:
    return list(films(400, size=32))


def patient(seed: int) -> tuple[Anatomy, Lesions]:
    rng = np.random.default_rng(seed)
    return Anatomy.draw(rng), Lesions.draw(rng)


def change(finding: str, seed: int) -> tuple[np.ndarray, Anatomy, Lesions]:
    """The change of each ray's attenuation by a finding, and the patient who has it."""
    anatomy, lesions = patient(seed)
    depth = [-np.log(transmission(thicknesses(anatomy, lesions, shown, X, Y))) for shown in ((), (finding,))]
    return depth[1] - depth[0], anatomy, lesions


# Physics


def test_transmission_of_two_bodies_by_hand() -> None:
    paths = {"muscle": np.array([3.0, 0.0]), "rib": np.array([2.0, 1.0])}
    # exp(-(0.2 * 3 + 0.5 * 2)) = exp(-1.6), and exp(-0.5)
    np.testing.assert_allclose(
        transmission(paths, {"muscle": 0.2, "rib": 0.5}), [0.2018965180, 0.6065306597], rtol=1e-9
    )


def test_attenuation_is_that_of_the_tables_at_60_kev() -> None:
    # 3.19 cm of soft tissue halve the beam; 20 cm of gas absorb less than half a per cent
    assert math.log(2) / ATTENUATION["soft"] == pytest.approx(3.19, abs=0.01)
    assert transmission({"gas": np.array(20.0)}) > 0.995
    order = [ATTENUATION[tissue] for tissue in ("bone", "soft", "fluid", "lung", "gas")]
    assert order == sorted(order, reverse=True)


def test_chords_of_a_sphere_and_a_tube() -> None:
    x, y = np.array([0.0, 1.2, 2.5]), np.zeros(3)
    np.testing.assert_allclose(ellipsoid(x, y, (0, 0), (2, 2, 2)), [4.0, 3.2, 0.0])  # 2 sqrt(2² - 1.2²) = 3.2
    np.testing.assert_allclose(tube(y, x, (-5, 0), (5, 0), 2.0), [4.0, 3.2, 0.0])


def test_a_turned_ellipsoid_has_its_long_axis_turned() -> None:
    along = (3.9 * math.cos(0.5), 3.9 * math.sin(0.5))
    assert ellipsoid(np.array(along[0]), np.array(along[1]), (0, 0), (4, 1, 1), 0.5) > 0
    assert ellipsoid(np.array(along[0]), np.array(-along[1]), (0, 0), (4, 1, 1), 0.5) == 0


@pytest.mark.parametrize("seed", range(4))
def test_what_displaces_tissue_takes_its_place(seed: int) -> None:
    anatomy, lesions = patient(seed)
    trunks = []
    for shown in ((), FINDINGS):
        paths = thicknesses(anatomy, lesions, shown, X, Y)
        assert min(path.min() for path in paths.values()) >= 0
        trunks.append(sum(paths.values()))
    np.testing.assert_allclose(trunks[1], trunks[0], atol=1e-4)
    assert trunks[0].max() < 27  # cm


# Findings: position, size and density


@pytest.mark.parametrize("seed", range(5))
def test_nodule_is_a_ball_of_tissue_in_one_lung(seed: int) -> None:
    depth, _, lesions = change("nodule", seed)
    changed = np.abs(depth) > 1e-4
    width = np.ptp(X[changed])
    assert width <= 2 * lesions.nodule_radius + 0.2
    assert np.sign(X[changed].mean()) == lesions.nodule_side
    whole = 2 * lesions.nodule_radius * (ATTENUATION["soft"] - ATTENUATION["lung"])
    assert 0.3 * whole < depth.max() < 1.01 * whole


@pytest.mark.parametrize("seed", range(5))
def test_effusion_blunts_its_costophrenic_angle_and_spares_the_rest(seed: int) -> None:
    depth, anatomy, lesions = change("effusion", seed)
    bare = _cavity(anatomy, lesions.effusion_side, X, Y)
    angle = (bare > 1.0) & (anatomy.dome + 1.5 < Y) & (np.abs(X) > APEX_AXIS + 0.6 * anatomy.lung_width)
    assert angle.any()
    assert (depth[angle] > 0.1).all()
    assert (np.abs(depth[X * lesions.effusion_side < 0]) < 1e-4).all()
    assert (np.abs(depth[anatomy.dome - 0.55 * anatomy.lung_height > Y]) < 1e-4).all()
    # The meniscus: fluid reaches higher at the wall than in the middle of the lung.
    wet = depth > 0.05
    middle = np.argmin(np.abs(CM - lesions.effusion_side * APEX_AXIS))
    wall = np.argmin(np.abs(CM - lesions.effusion_side * (APEX_AXIS + 0.93 * anatomy.lung_width)))
    assert CM[wet[:, wall].argmax()] < CM[wet[:, middle].argmax()] - 1


@pytest.mark.parametrize("seed", range(5))
def test_pneumothorax_is_gas_at_the_wall_behind_a_pleural_line(seed: int) -> None:
    depth, anatomy, lesions = change("pneumothorax", seed)
    side = -lesions.effusion_side
    assert (np.abs(depth[X * side < 0]) < 1e-4).all()
    row = np.argmin(np.abs(CM - (anatomy.dome - 0.6 * anatomy.lung_height)))
    outwards = depth[row] if side > 0 else depth[row, ::-1]
    gas = outwards.argmin()
    assert outwards[gas] < -0.15  # no lung at the wall
    # The visceral pleura is denser than its surroundings within 8 mm on either side.
    ridge = max(
        range(8, gas),
        key=lambda i: outwards[i] - max(outwards[i - 8 : i].min(), outwards[i : i + 8].min()),
    )
    assert outwards[ridge] - max(outwards[ridge - 8 : ridge].min(), outwards[ridge : ridge + 8].min()) > 0.1
    wide = np.abs(depth) > 1e-3
    assert wide[anatomy.dome - 0.8 * anatomy.lung_height > Y].any()  # the apex as well


@pytest.mark.parametrize("seed", range(8))
def test_cardiothoracic_ratio_as_a_reader_measures_it(seed: int) -> None:
    anatomy, _ = patient(seed)
    inner = sum(np.abs(X[_cavity(anatomy, side, X, Y) > 0]).max() for side in (-1, 1))
    ratios = []
    for enlarged in (False, True):
        low_half = np.where(anatomy.dome - 0.45 * anatomy.lung_height < Y, _heart(anatomy, enlarged, X, Y), 0)
        ratios.append(np.ptp(X[low_half > 0]) / inner)
    assert ratios == pytest.approx([anatomy.heart_ratio, anatomy.enlarged_ratio], abs=0.015)
    assert ratios[0] < 0.5 < ratios[1]


@pytest.mark.parametrize("seed", range(5))
def test_consolidation_is_a_soft_edged_density_in_one_lung(seed: int) -> None:
    depth, anatomy, lesions = change("consolidation", seed)
    assert depth.min() > -1e-4
    assert depth.max() > 0.2
    centre = lesions.consolidation_side * (APEX_AXIS + lesions.consolidation_at[0] * anatomy.lung_width)
    assert np.abs(X[depth > 1e-3] - centre).max() < 2.3 * lesions.consolidation_radius
    inside = _cavity(anatomy, lesions.consolidation_side, X, Y) > 9  # away from the borders of the lung
    steps = np.abs(np.diff(depth, axis=1))[inside[:, 1:] & inside[:, :-1]]
    assert steps.max() < 0.35 * depth.max()  # per millimetre; the rim of a nodule would be steeper


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_film_differs_only_where_the_finding_is(finding: str) -> None:
    for seed in range(4):
        without, shown = (render(found, np.random.default_rng(seed), 96).astype(int) for found in ((), (finding,)))
        changed = without != shown
        assert 10 < changed.sum() < 0.35 * changed.size
        assert not changed[:, :8].any()  # the arms
        assert not changed[:, -8:].any()
        brighter = (shown > without).sum() / changed.sum()
        assert brighter < 0.35 if finding == "pneumothorax" else brighter > 0.9


def test_brightness_alone_does_not_name_a_finding(archive: list[Film]) -> None:
    brightness = np.array([film.pixels.mean() for film in archive])
    for finding in FINDINGS:
        positive = np.array([finding in film.findings for film in archive])
        pairs = np.sign(brightness[positive][:, None] - brightness[~positive][None])
        assert 0.3 < (pairs.mean() + 1) / 2 < 0.72, finding


# Series of films, and their files


def test_the_same_seed_gives_the_same_bytes(archive: list[Film]) -> None:
    again = list(films(3, size=32))
    for film, other in zip(again, archive, strict=False):
        assert film.pixels.tobytes() == other.pixels.tobytes()
        assert (film.findings, film.patient) == (other.findings, other.patient)
    assert next(films(1, seed=1, size=32)).pixels.tobytes() != archive[0].pixels.tobytes()
    one, two = (render(("nodule",), np.random.default_rng(5), 64) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert one.dtype == np.uint8
    assert one.shape == (64, 64)


def test_findings_are_common_and_patients_return(archive: list[Film]) -> None:
    for finding in FINDINGS:
        assert 0.2 < np.mean([finding in film.findings for film in archive]) < 0.36
    per_patient = np.unique([film.patient for film in archive], return_counts=True)[1]
    assert set(per_patient.tolist()) == {1, 2, 3}


def test_bone_is_bright_and_air_is_black() -> None:
    film = render((), np.random.default_rng(0), 128)
    assert film[100, 60:68].mean() > 150  # spine before the diaphragm
    assert film[0, 0] == 0  # beside the neck
    assert film.std() > 40


def test_files_and_labels(tmp_path: Path) -> None:
    folder = write_films(tmp_path / "films", 30, seed=3, size=24)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "patient", "view", "split", *FINDINGS]
    assert len(rows) == len({row["path"] for row in rows}) == 30
    for row, film in zip(rows, films(30, seed=3, size=24), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / row["path"])), film.pixels)
        assert tuple(finding for finding in FINDINGS if row[finding] == "1") == film.findings
        assert row["patient"] == film.patient
    splits = {(row["patient"], row["split"]) for row in rows}
    assert len(splits) == len({row["patient"] for row in rows})  # no patient is in both
    assert {split for _, split in splits} == {"train", "test"}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_films(folder, 30, seed=3, size=24)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_three_in_ten_patients_are_test(tmp_path: Path) -> None:
    folder = write_films(tmp_path, 60, size=8)
    with (folder / "labels.csv").open(newline="") as file:
        splits = {row["patient"]: row["split"] for row in csv.DictReader(file)}
    first = list(islice(splits.values(), 30))
    assert first.count("test") == 9


@pytest.mark.parametrize("name", ["mine.png", "mine.jpg", "phantom99999_0.png", "notes.txt", "labels.csv"])
def test_a_persons_own_files_are_neither_mixed_nor_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(DatasetError, match=f"{re.escape(name)}.*choose another folder"):
        write_films(tmp_path, 2, size=8)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_films_of_another_seed_are_not_overwritten(tmp_path: Path) -> None:
    write_films(tmp_path, 6, seed=0, size=8)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DatasetError, match=r"choose another folder"):
        write_films(tmp_path, 6, seed=1, size=8)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_unknown_finding() -> None:
    with pytest.raises(C2LError, match=r"expected findings among nodule, effusion.*; found 'fracture'"):
        render(("nodule", "fracture"), np.random.default_rng(0))


def test_needs_no_torch() -> None:
    check = "import sys, c2l_models.radiographs.phantom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
