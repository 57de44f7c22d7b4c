"""`prepare`: content of a store, refused files, refused arguments, and private text that must not enter a store."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from store_helpers import SIZE, prepare_folder, refusal_reasons, stopped_at, store_bytes, write_image, write_images

from c2l_models.errors import DatasetError
from c2l_models.training.store import decode_or_refuse, decode_workers, prepare, sources, store_format


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("key") / "patient.key"
    monkeypatch.setenv("C2L_PATIENT_KEY", str(path))
    return path


def test_a_store_holds_images_index_and_what_was_refused(tmp_path):
    root = tmp_path / "films"
    pixels = {name: write_image(root / f"{name}.png", seed) for seed, name in enumerate("dab")}
    (root / "a2.png").write_bytes((root / "a.png").read_bytes())
    (root / "broken.png").write_bytes(b"not an image")
    write_image(root / "unlisted.png", 9)
    (root / "labels.csv").write_text(
        "path,patient,view,split,x,y\nd.png,1,PA,test,1,\nb.png,2,,,0,2.5\na2.png,2,,,0,2.5\na.png,2,,,0,2.5\n"
        "broken.png,3,,,,\ngone.png,4,,,,\n"
    )
    report = prepare_folder(root, tmp_path / "store")
    assert (report.images, report.refused, report.duplicates) == (4, 3, 1)
    assert report.store == tmp_path / "store"
    index = pq.read_table(tmp_path / "store" / "index.parquet").to_pylist()
    assert [row["path"] for row in index] == ["a.png", "a2.png", "b.png", "d.png"]
    images = np.load(tmp_path / "store" / "images.npy")
    np.testing.assert_array_equal(images, [pixels[name] for name in "aabd"])
    assert dict(index[2]["labels"]) == {"x": 0.0, "y": 2.5}
    assert index[3]["sha256"] == hashlib.sha256((root / "d.png").read_bytes()).hexdigest()
    assert (index[3]["dataset"], index[3]["view"], index[3]["split"]) == ("folder", "PA", "test")
    assert index[0]["patient"] == index[2]["patient"] != index[3]["patient"]
    reasons = refusal_reasons(tmp_path / "store")
    assert list(reasons) == ["broken.png", "gone.png", "unlisted.png"]
    assert reasons["broken.png"].startswith("not a PNG")  # the decoder's reason, without the path
    assert reasons["gone.png"] == "no such file"
    assert reasons["unlisted.png"] == "on disk, but not in the label file"
    description = json.loads((tmp_path / "store" / "store.json").read_text())
    assert description["counts"] == {"folder/test": 1, "folder/train": 3}
    assert (description["size"], description["images"], description["refused"]) == (SIZE, 4, 3)
    for name in ("images.npy", "index.parquet", "refused.parquet"):
        sha256 = hashlib.sha256((tmp_path / "store" / name).read_bytes()).hexdigest()
        assert description[f"{name.partition('.')[0]}_sha256"] == sha256
    assert not (tmp_path / "store.partial").exists()


def test_sources_come_in_the_order_given(tmp_path):
    write_image(tmp_path / "folder" / "z.png", 0)
    write_image(tmp_path / "knee" / "images" / "1L.jpg", 1)
    (tmp_path / "knee" / "labels.csv").write_text("image,subject,side,kl_grade,split\n1L.jpg,1,L,2,val\n")
    sources = [("knee_kl", tmp_path / "knee"), ("folder", tmp_path / "folder")]
    for given in (sources, sources[::-1]):
        out = tmp_path / given[0][0]
        out = prepare.prepare(given, tmp_path / f"store-{given[0][0]}", SIZE, 1, False).store
        assert pq.read_table(out / "index.parquet")["dataset"].to_pylist() == [name for name, _ in given]
        assert json.loads((out / "store.json").read_text())["sources"] == [name for name, _ in given]


def rename(monkeypatch, **changes) -> None:
    """Make the records of `folder` have these values, each followed by the file's number."""
    adapter = sources.ADAPTERS["folder"]

    def records(root: Path) -> list:
        return [replace(r, **{k: v + r.path.stem[-1] for k, v in changes.items()}) for r in adapter(root)]

    monkeypatch.setattr(sources, "ADAPTERS", {"folder": records})


def test_studies_and_names_are_in_the_index_and_no_path_that_has_a_number_of_a_patient(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "NUMBERED_PATHS", {"folder"})
    root = write_images(tmp_path / "p10000032", 4)
    (root / "0001.png").write_bytes(b"broken")
    (root / "labels.csv").write_text("path\n0000.png\n0001.png\n0002.png\n")
    (root / "p10000033").mkdir()
    (root / "0003.png").rename(root / "p10000033" / "0003.png")
    rename(monkeypatch, study="s", name="image-")
    store = prepare_folder(root, tmp_path / "store").store
    index = pq.read_table(store / "index.parquet").to_pylist()
    assert [(row["path"], row["study"]) for row in index] == [("image-0", "s0"), ("image-2", "s2")]
    assert refusal_reasons(store) == {
        "image-1": "not a PNG, JPEG, TIFF, BMP or DICOM file, or one whose header is damaged",
        "": "on disk, but not in the label file (1)",
    }
    everything = b"".join(store_bytes(store).values())
    assert b"p1000003" not in everything
    assert b"000" + b"2.png" not in everything


def test_another_study_or_name_is_another_plan(tmp_path, monkeypatch):
    root, out = write_images(tmp_path / "films", 3), tmp_path / "store"
    with stopped_at(store_format.pq, "write_table"):
        prepare_folder(root, out)
    for change in ({"study": "s"}, {"name": "n"}):
        with monkeypatch.context() as patch:
            rename(patch, **change)
            with pytest.raises(DatasetError, match="begun with other settings: sha256 of the records"):
                prepare_folder(root, out)


def test_a_film_of_another_shape_is_resized_and_cropped(tmp_path):
    wide = np.full((40, 80), 200, np.uint8)
    wide[:, 20:60] = 50  # the central square
    (tmp_path / "films").mkdir()
    Image.fromarray(wide).save(tmp_path / "films" / "wide.png")
    images = np.load(prepare_folder(tmp_path / "films", tmp_path / "store").store / "images.npy")
    assert images.shape == (1, SIZE, SIZE)
    assert (images[0, :, 1:-1] == 50).all()


def test_processes_and_a_second_time_give_the_same_bytes(tmp_path):
    write_images(tmp_path / "films", 2 * decode_workers.CHUNK + 5)
    (tmp_path / "films" / "0007.png").write_bytes(b"")
    alone = store_bytes(prepare_folder(tmp_path / "films", tmp_path / "alone").store)
    assert store_bytes(prepare_folder(tmp_path / "films", tmp_path / "again").store) == alone
    assert store_bytes(prepare_folder(tmp_path / "films", tmp_path / "together", workers=2).store) == alone


def test_what_cannot_be_prepared_says_why(tmp_path):
    with pytest.raises(DatasetError, match=r"unknown data set chestxray; choose from chestxray14, .*fracatlas, folder"):
        prepare.prepare([("chestxray", tmp_path)], tmp_path / "store")
    for given in ([], [("folder", tmp_path)] * 2):
        with pytest.raises(DatasetError, match=r"expected each data set once, found (none|folder, folder);"):
            prepare.prepare(given, tmp_path / "store")
    with pytest.raises(DatasetError, match="is not a folder"):
        prepare_folder(tmp_path / "absent", tmp_path / "store")
    with pytest.raises(DatasetError, match="expected a size of at least 1 pixel, such as 128, found 0"):
        prepare_folder(tmp_path, tmp_path / "store", size=0)
    for shard in ((0, 2), (3, 2)):
        with pytest.raises(DatasetError, match=rf"expected shard K/N .*, found {shard[0]}/2"):
            prepare_folder(tmp_path, tmp_path / "store", shard=shard)
    write_image(tmp_path / "films" / "a.png", 0)
    (tmp_path / "films" / "a.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"no image could be decoded: a\.png: not a PNG.*remove .*store\.partial"):
        prepare_folder(tmp_path / "films", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_decoder_that_breaks_in_its_own_way_stops_nothing_and_is_not_quoted(tmp_path, monkeypatch):
    write_images(tmp_path / "films", 2)
    read = decode_or_refuse.read_file

    def breaking(path):
        if path.endswith("0000.png"):
            raise RuntimeError("DOE^JANE")
        return read(path)

    monkeypatch.setattr(decode_or_refuse, "read_file", breaking)
    assert refusal_reasons(prepare_folder(tmp_path / "films", tmp_path / "store").store) == {
        "0000.png": "unexpected RuntimeError"
    }


@pytest.mark.parametrize("error", [MemoryError, OSError, ImportError])
def test_what_this_machine_cannot_do_now_stops_the_call_and_is_not_recorded(tmp_path, monkeypatch, error):
    root = write_images(tmp_path / "films", 3)
    (root / "0000.png").write_bytes(b"broken")
    read = decode_or_refuse.read_file

    def failing(path):
        if path.endswith("0001.png"):
            raise error("DOE^JANE")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(decode_or_refuse, "read_file", failing)
        with pytest.raises(
            DatasetError, match=rf"0001\.png: unexpected {error.__name__}\. Correct the cause, or move the file away"
        ):
            prepare_folder(root, tmp_path / "store")
    assert list(refusal_reasons(prepare_folder(root, tmp_path / "store").store)) == ["0000.png"]


def test_too_little_room_is_said_at_the_start(tmp_path, monkeypatch):
    write_images(tmp_path / "films", 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage._replace(free=3 * SIZE**2 - 1))
    with pytest.warns(UserWarning, match="may not fit"):
        prepare_folder(tmp_path / "films", tmp_path / "store")


SECRETS = ("DOE", "JANE", "MRN0042", "metastasis", "Hospital", "19500101", "rotated")


def write_dicom(path: Path, pixels: np.ndarray, keep: int | None = None) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "DOE^JANE", "MRN0042", "19500101"
    dataset.PatientComments = dataset.ImageComments = "metastasis suspected"
    dataset.StudyDescription, dataset.InstitutionName = "chest of JANE", "Hospital"
    dataset.ViewPosition = "rotated"
    dataset.PatientAge = "JANE"  # not an age: a warning would quote it
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    path.write_bytes(path.read_bytes()[:keep])


def secrets_in(folder: Path) -> set[str]:
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return {secret for secret in SECRETS if secret.encode().lower() in everything.lower()}


@pytest.mark.filterwarnings("ignore")  # pydicom warns about the invalid values when it writes them
def test_no_name_and_no_free_text_of_dicom_gets_in(tmp_path, capfd, caplog, key):
    root = tmp_path / "films"
    root.mkdir()
    pixels = np.full((SIZE, SIZE), 90, np.uint8)
    pixels[0, 0] = 0
    write_dicom(root / "a.dcm", pixels)
    write_dicom(root / "b", pixels)
    write_dicom(root / "truncated.dcm", pixels, keep=-SIZE)
    write_dicom(root / "headless.dcm", pixels, keep=400)
    assert secrets_in(root) == set(SECRETS)
    capfd.readouterr()
    caplog.clear()
    with stopped_at(store_format.pq, "write_table"):
        prepare_folder(root, tmp_path / "store")
    assert secrets_in(tmp_path / "store.partial") == set()
    store = prepare_folder(root, tmp_path / "store", progress=True).store
    assert secrets_in(store) == set()
    assert key.read_bytes() not in b"".join(store_bytes(store).values())
    printed = "".join(capfd.readouterr()) + caplog.text
    assert [secret for secret in SECRETS if secret in printed] == []
    index = pq.read_table(store / "index.parquet").to_pylist()
    assert [(row["path"], row["view"]) for row in index] == [("a.dcm", ""), ("b", "")]
    assert index[0]["patient"] == index[1]["patient"]
    assert set(refusal_reasons(store)) == {"truncated.dcm", "headless.dcm"}
