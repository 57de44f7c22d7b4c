"""The benchmark of `c2l prepare`: its files and ratios, not the speed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.training.benchmark import decode_only, input_images, timing
from c2l_models.training.benchmark import prepare_speed as module
from c2l_models.training.benchmark.input_images import images_by_kind, link_files, synthetic_images
from c2l_models.training.benchmark.prepare_speed import time_prepare


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))


def test_both_kinds_are_timed_on_links_to_the_films(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[list[str]] = []
    decoded: list[int] = []
    prepare, decode_all = module.prepare, module.decode_all

    def note_prepare(sources: list[tuple[str, Path]], *others: object, **options: object) -> object:
        prepared.append([path.suffix for path in sources[0][1].iterdir()])
        return prepare(sources, *others, **options)

    def note_decode(paths: list[Path], workers: int) -> None:
        decoded.append(len(paths))
        decode_all(paths, workers)

    monkeypatch.setattr(module, "prepare", note_prepare)
    monkeypatch.setattr(module, "decode_all", note_decode)
    result = time_prepare(tiny_folder, 16, files=70, workers=1, repeats=1, progress=False)
    assert (result.distinct_images, result.files) == ({"PNG": 64, "JPEG": 64}, 70)
    assert {tuple(suffixes) for suffixes in prepared} == {(".png",) * 70, (".jpg",) * 70}
    assert set(decoded) == {70}
    result.save(tmp_path / "prepare.json")
    assert json.loads((tmp_path / "prepare.json").read_text())["ratios"] == result.ratios


def test_the_ratio_is_of_rates(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {f"{work} {kind}": (1.0,) for work in ("prepare", "decode") for kind in ("PNG", "JPEG")}
    taken |= {"prepare PNG": (2.0, 4.0, 4.0), "decode PNG": (1.0, 3.0, 8.0)}
    monkeypatch.setattr(module, "time_alternately", lambda *_: taken)
    assert time_prepare(tiny_folder, files=2, progress=False).ratios == {"PNG": 0.75, "JPEG": 1.0}


def test_a_missing_kind_is_made_of_the_other(tmp_path: Path) -> None:
    images, made = tmp_path / "images", tmp_path / "made"
    images.mkdir()
    made.mkdir()
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(gray).convert("RGB").save(images / "film.JPG", "JPEG", quality=100)
    found = images_by_kind(images, made)
    assert found["JPEG"] == [images / "film.JPG"]
    assert [path.parent.parent for path in found["PNG"]] == [made]
    with Image.open(found["PNG"][0]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))
        assert np.abs(np.asarray(image).astype(int) - gray).max() <= 2


def test_films_are_linked_again_and_again(tmp_path: Path) -> None:
    films = [tmp_path / "a.png", tmp_path / "b.jpg"]
    for film in films:
        film.write_text(film.name)
    root = link_files(films, 3, tmp_path / "links")
    assert [path.read_text() for path in sorted(root.iterdir())] == ["a.png", "b.jpg", "a.png"]
    assert [path.suffix for path in sorted(root.iterdir())] == [".png", ".jpg", ".png"]


def test_synthetic_films_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_images, "SYNTHETIC_COUNT", 2)
    monkeypatch.setattr(input_images, "SYNTHETIC_SIDE", 64)
    written = sorted(synthetic_images(tmp_path / "synthetic").iterdir())
    assert [Image.open(path).size for path in written] == [(64, 64)] * 2


def test_a_folder_without_films_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected PNG or JPEG files, found none"):
        time_prepare(tmp_path, progress=False)


def test_a_film_that_cannot_be_read_is_no_benchmark(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "a.png")
    for suffix in ("png", "jpg"):
        (tmp_path / "images" / f"b.{suffix}").write_bytes(b"no film")
    with pytest.raises(DatasetError, match="1 images cannot be read"):
        time_prepare(tmp_path / "images", files=2, workers=1, repeats=1, progress=False)


def test_decoding_alone_decodes_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "gray.png")
    Image.fromarray(noise).convert("RGBA").save(tmp_path / "colour.png")
    converted: list[tuple[str, str]] = []
    convert = Image.Image.convert

    def note(image: Image.Image, mode: str) -> Image.Image:
        converted.append((image.mode, mode))
        return convert(image, mode)

    monkeypatch.setattr(Image.Image, "convert", note)
    decode_only.decode_all([tmp_path / "gray.png", tmp_path / "colour.png"], workers=1)
    assert converted == [("RGBA", "L")]

    whole = (tmp_path / "gray.png").read_bytes()
    (tmp_path / "gray.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="truncated"):
        decode_only.decode_all([tmp_path / "gray.png"], workers=1)
