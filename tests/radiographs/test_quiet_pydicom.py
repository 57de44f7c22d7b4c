"""No text of a DICOM file leaves it by way of a library's warning or log, in any command that reads files."""

import subprocess
import sys

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

SECRET = b"DoeJane 71"


@pytest.fixture
def folder(tmp_path):
    """A folder with one film whose character set, of ten characters, is replaced by a name."""
    from pydicom.uid import ExplicitVRLittleEndian

    film = pydicom.Dataset()
    film.file_meta = pydicom.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.SpecificCharacterSet = "ISO_IR 100"
    film.PatientID, film.ViewPosition = "7", "PA"
    film.Rows, film.Columns, film.SamplesPerPixel = 40, 50, 1
    film.PhotometricInterpretation = "MONOCHROME2"
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation = 7, 0
    film.PixelData = np.arange(2000, dtype=np.uint8).tobytes()
    (tmp_path / "films").mkdir()
    film.save_as(tmp_path / "films" / "a.dcm", enforce_file_format=True)
    data = (tmp_path / "films" / "a.dcm").read_bytes()
    assert data.count(b"ISO_IR 100") == 1
    (tmp_path / "films" / "a.dcm").write_bytes(data.replace(b"ISO_IR 100", SECRET))
    return tmp_path


def output(*arguments, code="from c2l_models.cli import main; main()"):
    done = subprocess.run([sys.executable, "-W", "always", "-c", code, *map(str, arguments)], capture_output=True)
    return done.returncode, done.stdout + done.stderr


def test_pydicom_would_quote_it(folder):
    code = "import sys, pydicom; pydicom.dcmread(sys.argv[1]).PatientName"
    assert SECRET in output(folder / "films" / "a.dcm", code=code)[1]


@pytest.mark.parametrize("command", ["embed", "search", "prepare", "read_radiograph", "dicom_header"])
def test_no_command_quotes_it(folder, command):
    film = folder / "films" / "a.dcm"
    read = "from c2l_models import read_radiograph; read_radiograph(sys.argv[1])"
    header = "from c2l_models.training.datasets.dicom_header import dicom_header as h; print(h(Path(sys.argv[1])))"
    embed = ["embed", film.parent, "--out", folder / "x.npz"]
    calls = {
        "embed": [embed],
        "search": [embed, ["search", film, "--in", folder / "x.npz"]],
        "prepare": [["prepare", "--source", f"folder={film.parent}", "--out", folder / "store"]],
    }
    if command in calls:
        for arguments in calls[command]:
            status, text = output(*arguments)
    else:
        code = {"read_radiograph": read, "dicom_header": header}[command]
        status, text = output(film, code=f"import sys; from pathlib import Path; {code}")
    assert SECRET not in text
    assert SECRET.split()[0] not in text
    assert status == (2 if command == "search" else 0), text.decode()  # search: no other film
