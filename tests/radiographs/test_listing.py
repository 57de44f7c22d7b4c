"""`list_images`: which files are images, by name and by content, and what is reported of the others."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from c2l_models.radiographs.listing import SHOWN, is_dicom_file, left_out_count, left_out_lines, list_images

UID = "1.2.840.113619.2.55.3"


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, kind)
    return buffer.getvalue()


CONTENTS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP")} | {
    "DICOM": bytes(128) + b"DICM" + b"\x02\0\0\0UL\4\0",
    "DICOM without preamble, explicit": b"\x08\0\5\0CS\x0a\0ISO_IR 100",
    "DICOM without preamble, implicit": b"\x08\0\5\0\x0a\0\0\0ISO_IR 100",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", [UID, "film", "film.1", "IM000001", "film.unknown", "film.DAT", ".hidden"])
def test_a_file_whose_name_does_not_say_is_judged_by_content(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(CONTENTS[content])
    listing = list_images(tmp_path)
    assert (listing.images, listing.all_left_out()) == ([name], [])
    assert is_dicom_file(tmp_path / name) == content.startswith("DICOM")


NAMES = ("png", "jpg", "jpeg", "jpe", "tif", "tiff", "bmp", "PNG", "JPE", "Bmp")
DICOM_NAMES = ("dcm", "dicom", "ima", "DCM", "IMA")


@pytest.mark.parametrize("suffix", NAMES + DICOM_NAMES)
def test_a_name_that_says_is_believed(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"film.{suffix}").touch()
    assert list_images(tmp_path).images == [f"film.{suffix}"]
    assert is_dicom_file(tmp_path / f"film.{suffix}") == (suffix in DICOM_NAMES)


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("labels.csv", "deep/more.CSV", "notes.txt", "a.png"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "DICOMDIR").write_bytes(CONTENTS["DICOM"])
    (tmp_path / "._a.png").write_bytes(CONTENTS["PNG"])
    (tmp_path / "README").write_text("BMP and other files", encoding="utf-8")
    (tmp_path / "empty").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would block for ever
    listing = list_images(tmp_path)
    assert listing.images == ["a.png"]
    reasons = dict(listing.left_out)
    content, irregular = (
        "not a PNG, JPEG, TIFF, BMP or DICOM file by its content",
        "not a regular file, or a link to none",
    )
    assert reasons.pop("pipe", irregular) == irregular
    by_name = {path: reasons.pop(path) for path in ("labels.csv", "deep/more.CSV", "notes.txt")}
    assert by_name == {path: f"not an image by its name ({path[-4:].lower()})" for path in by_name}
    assert reasons == {
        "._a.png": "file attributes of macOS",
        "README": content,
        "deep/DICOMDIR": "a table of DICOM files, without pixels",
        "empty": content,
        "gone": irregular,
    }
    paths = [path for path, _ in listing.all_left_out()]
    assert set(paths[-3:]) == set(by_name)  # the least surprising come last
    assert len(paths) == len(set(paths))
    assert f"left out 'README': {content}" in left_out_lines(listing.all_left_out())


def test_a_report_names_the_first_and_counts_the_others() -> None:
    left_out = [(f"report {number:02}", "empty") for number in range(SHOWN + 3)] + [("a.txt", "text")]
    lines = left_out_lines(left_out)
    assert lines[0] == "left out 'report 00': empty"
    assert lines[SHOWN:] == ["left out 3 more: empty", "left out 1 more: text"]
    assert [left_out_count(count) for count in (0, 1, 2000)] == ["", "; 1 file left out", "; 2,000 files left out"]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_content_is_listed_or_left_out(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / UID).write_bytes(content)
    listing = list_images(folder)
    assert (UID in listing.images) != (UID in dict(listing.left_out))


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = SecondaryCaptureImageStorage
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.PatientID = "P1"
    film.set_pixel_data(pixels, "MONOCHROME2", 8)
    film.save_as(path, enforce_file_format=True)


def test_embed_and_prepare_read_the_names_of_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pydicom")
    from c2l_models.cli import main
    from c2l_models.training.store.image_store import ImageStore

    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "key"))
    films = tmp_path / "films"
    films.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 70)).astype(np.uint8)
    for number, name in enumerate([UID, f"{UID}.1", "film.ima", "IM1"]):
        write_dicom(films / name, np.roll(pixels, number))
    (films / "README").write_text("three films", encoding="utf-8")
    (films / "notes.txt").touch()
    for words in (
        ["embed", str(films), "--out", str(tmp_path / "f.parquet"), "--device", "cpu"],
        ["prepare", "--source", f"folder={films}", "--out", str(tmp_path / "store"), "--size", "64"],
    ):
        monkeypatch.setattr(sys, "argv", ["c2l", *words])
        main()
        printed = capsys.readouterr()
        lines = (printed.err + printed.out).splitlines()
        assert "left out 'README': not a PNG, JPEG, TIFF, BMP or DICOM file by its content" in lines
        assert "left out 'notes.txt': not an image by its name (.txt)" in lines
        assert lines[-1].startswith("4 ")
        assert lines[-1].endswith("; 2 files left out")
    store = ImageStore.open(tmp_path / "store")
    assert len(store) == 4
    assert len(set(store.index["patient"].to_pylist())) == 1
