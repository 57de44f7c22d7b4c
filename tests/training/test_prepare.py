"""`prepare`: what is in a store, what is refused, and that a stop at any moment costs nothing."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.training import decoding, prepare

SIZE = 8
CHUNK = decoding.CHUNK


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("key") / "patient.key"
    monkeypatch.setenv("C2L_PATIENT_KEY", str(path))
    return path


def film(path: Path, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def films(root: Path, count: int) -> list[np.ndarray]:
    return [film(root / f"{number:04}.png", number) for number in range(count)]


def make(root: Path, out: Path, **options) -> prepare.PrepareReport:
    return prepare.prepare([("folder", root)], out, **{"size": SIZE, "workers": 1, "progress": False} | options)


def content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def refused(store: Path) -> dict[str, str]:
    table = pq.read_table(store / "refused.parquet")
    return dict(zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_a_store_holds_images_index_and_what_was_refused(tmp_path):
    root = tmp_path / "films"
    pixels = {name: film(root / f"{name}.png", seed) for seed, name in enumerate("dab")}
    (root / "a2.png").write_bytes((root / "a.png").read_bytes())
    (root / "broken.png").write_bytes(b"not an image")
    film(root / "unlisted.png", 9)
    (root / "labels.csv").write_text(
        "path,patient,view,split,x,y\nd.png,1,PA,test,1,\nb.png,2,,,0,2.5\na2.png,2,,,0,2.5\na.png,2,,,0,2.5\n"
        "broken.png,3,,,,\ngone.png,4,,,,\n"
    )
    report = make(root, tmp_path / "store")
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
    reasons = refused(tmp_path / "store")
    assert list(reasons) == ["broken.png", "gone.png", "unlisted.png"]
    assert reasons["broken.png"].startswith("broken.png: not a PNG")  # the reader's, without this machine's path
    assert reasons["gone.png"] == "missing file"
    assert "no row" in reasons["unlisted.png"]
    description = json.loads((tmp_path / "store" / "store.json").read_text())
    assert description["counts"] == {"folder/test": 1, "folder/train": 3}
    assert (description["size"], description["images"], description["refused"]) == (SIZE, 4, 3)
    assert not (tmp_path / "store.partial").exists()


def test_sources_come_in_the_order_given(tmp_path):
    film(tmp_path / "folder" / "z.png", 0)
    film(tmp_path / "knee" / "images" / "1L.jpg", 1)
    (tmp_path / "knee" / "labels.csv").write_text("image,subject,side,kl_grade,split\n1L.jpg,1,L,2,val\n")
    sources = [("knee_kl", tmp_path / "knee"), ("folder", tmp_path / "folder")]
    for given in (sources, sources[::-1]):
        out = tmp_path / given[0][0]
        out = prepare.prepare(given, tmp_path / f"store-{given[0][0]}", SIZE, 1, False).store
        assert pq.read_table(out / "index.parquet")["dataset"].to_pylist() == [name for name, _ in given]
        assert json.loads((out / "store.json").read_text())["sources"] == [name for name, _ in given]


def test_a_film_of_another_shape_is_resized_and_cropped(tmp_path):
    wide = np.full((40, 80), 200, np.uint8)
    wide[:, 20:60] = 50  # the central square
    (tmp_path / "films").mkdir()
    Image.fromarray(wide).save(tmp_path / "films" / "wide.png")
    images = np.load(make(tmp_path / "films", tmp_path / "store").store / "images.npy")
    assert images.shape == (1, SIZE, SIZE)
    assert (images[0, :, 1:-1] == 50).all()


def test_processes_and_a_second_time_give_the_same_bytes(tmp_path):
    films(tmp_path / "films", 2 * CHUNK + 5)
    (tmp_path / "films" / "0007.png").write_bytes(b"")
    alone = content(make(tmp_path / "films", tmp_path / "alone").store)
    assert content(make(tmp_path / "films", tmp_path / "again").store) == alone
    assert content(make(tmp_path / "films", tmp_path / "together", workers=2).store) == alone


SLOW = """
import sys, time
from pathlib import Path
from c2l_models.training import decoding, prepare

read = decoding.read_radiograph
# In the workers too: each imports this script.
decoding.read_radiograph = lambda path: (time.sleep(0.005), read(path))[1]

if __name__ == "__main__":
    root, out, workers = sys.argv[1:]
    prepare.prepare([("folder", Path(root))], Path(out), {size}, int(workers), False)
"""


def group(leader: int) -> list[int]:
    """Processes of a group that are alive."""
    alive = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            alive.append(int(file.parent.name))
    return alive


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, workers):
    root, out, total = tmp_path / "films", tmp_path / "store", 6 * CHUNK
    films(root, total)
    (root / "0003.png").write_bytes(b"broken")
    whole = content(make(root, tmp_path / "whole").store)

    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(size=SIZE))
    journal = tmp_path / "store.partial" / "journal.jsonl"
    command = [sys.executable, script, root, out, str(workers)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while not journal.exists() or not journal.stat().st_size:
            assert process.poll() is None, "it ended before it was stopped"
            time.sleep(0.005)
        process.kill()
    deadline = time.monotonic() + 10
    while group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group(process.pid) == []
    assert not out.exists()
    finished = journal.read_bytes().count(b"\n")
    assert 1 <= finished < total // CHUNK

    with journal.open("a") as file:
        file.write('[["0123')  # a line cut short by the stop
    reads = []
    read = decoding.read_radiograph
    monkeypatch.setattr(decoding, "read_radiograph", lambda path: (reads.append(path), read(path))[1])
    make(root, out)
    assert len(reads) == total - finished * CHUNK
    assert content(out) == whole
    assert not (tmp_path / "store.partial").exists()


def begun(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """A folder of films and a store of it that was begun and stopped."""
    films(tmp_path / "films", 3)
    with monkeypatch.context() as patch:
        patch.setattr(prepare.pq, "write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "films", tmp_path / "store")
    return tmp_path / "films", tmp_path / "store"


def test_stopped_while_the_store_is_put_together_it_goes_on(tmp_path, monkeypatch):
    root, out = begun(tmp_path, monkeypatch)
    assert not out.exists()
    assert content(make(root, out).store) == content(make(root, tmp_path / "whole").store)


def test_a_line_cut_short_is_gone_from_the_journal_when_it_is_stopped_again(tmp_path, monkeypatch):
    whole = content(make(begun(tmp_path, monkeypatch)[0], tmp_path / "whole").store)
    journal = tmp_path / "store.partial" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    begun(tmp_path, monkeypatch)
    assert content(make(tmp_path / "films", tmp_path / "store").store) == whole


def test_a_store_begun_for_something_else_is_refused(tmp_path, monkeypatch):
    root, out = begun(tmp_path, monkeypatch)
    with pytest.raises(DatasetError, match=r"store\.partial was begun with other size;"):
        make(root, out, size=SIZE + 1)
    film(root / "more.png", 9)
    with pytest.raises(DatasetError, match="other records, sha256 of the records;"):
        make(root, out)
    (root / "more.png").unlink()
    (tmp_path / "store.partial" / "rows.u8").write_bytes(b"")
    with pytest.raises(DatasetError, match="shorter than journal"):
        make(root, out)


def test_a_finished_store_is_not_overwritten(tmp_path):
    films(tmp_path / "films", 2)
    before = content(make(tmp_path / "films", tmp_path / "store").store)
    with pytest.raises(DatasetError, match="exists and is not overwritten"):
        make(tmp_path / "films", tmp_path / "store")
    assert content(tmp_path / "store") == before


def test_what_cannot_be_prepared_says_why(tmp_path):
    with pytest.raises(DatasetError, match="chestxray14, knee_kl, folder"):
        prepare.prepare([("chestxray", tmp_path)], tmp_path / "store")
    for sources in ([], [("folder", tmp_path)] * 2):
        with pytest.raises(DatasetError, match="each data set once"):
            prepare.prepare(sources, tmp_path / "store")
    with pytest.raises(DatasetError, match="is not a folder"):
        make(tmp_path / "absent", tmp_path / "store")
    with pytest.raises(DatasetError, match="size is 0"):
        make(tmp_path, tmp_path / "store", size=0)
    film(tmp_path / "films" / "a.png", 0)
    (tmp_path / "films" / "a.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"no image could be read: a\.png: not a PNG.*remove .*store\.partial"):
        make(tmp_path / "films", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_decoder_that_breaks_in_its_own_way_stops_nothing_and_is_not_quoted(tmp_path, monkeypatch):
    films(tmp_path / "films", 2)
    read = decoding.read_radiograph

    def breaking(path):
        if path.name == "0000.png":
            raise RuntimeError("DOE^JANE")
        return read(path)

    monkeypatch.setattr(decoding, "read_radiograph", breaking)
    assert refused(make(tmp_path / "films", tmp_path / "store").store) == {"0000.png": "unexpected RuntimeError"}


SECRETS = ("DOE", "JANE", "MRN0042", "metastasis", "Hospital", "19500101", "rotated")


def write_dicom(path: Path, pixels: np.ndarray, keep: int | None = None) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "DOE^JANE", "MRN0042", "19500101"
    dataset.PatientComments = dataset.ImageComments = "metastasis suspected"
    dataset.StudyDescription, dataset.InstitutionName = "chest of JANE", "Hospital"
    dataset.ViewPosition = "rotated"
    dataset.PatientAge = "JANE"  # no age: a reader that warns quotes it
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


@pytest.mark.filterwarnings("ignore")  # pydicom warns about the made-up values as they are written
def test_no_name_and_no_free_text_of_dicom_gets_in(tmp_path, monkeypatch, capfd, caplog, key):
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
    with monkeypatch.context() as patch:
        patch.setattr(prepare.pq, "write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(root, tmp_path / "store")
    assert secrets_in(tmp_path / "store.partial") == set()
    store = make(root, tmp_path / "store", progress=True).store
    assert secrets_in(store) == set()
    assert key.read_bytes() not in b"".join(content(store).values())
    said = "".join(capfd.readouterr()) + caplog.text
    assert [secret for secret in SECRETS if secret in said] == []
    index = pq.read_table(store / "index.parquet").to_pylist()
    assert [(row["path"], row["view"]) for row in index] == [("a.dcm", ""), ("b", "")]
    assert index[0]["patient"] == index[1]["patient"]
    assert set(refused(store)) == {"truncated.dcm", "headless.dcm"}
