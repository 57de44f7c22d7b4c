"""MURA: a miniature of its layout."""

import re
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import image_files
from c2l_models.training.datasets.adapters import ADAPTERS

TRAIN = [
    "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png",
    "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image2.png",
    "MURA-v1.1/train/XR_ELBOW/patient00001/study1_negative/image1.png",
    "MURA-v1.1/train/XR_HAND/patient11184/study2_negative/image10.png",
]
VALID = ["MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/image1.png"]
TRAIN_STUDIES = [
    ["MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/", "1"],
    ["MURA-v1.1/train/XR_ELBOW/patient00001/study1_negative/", "0"],
    ["MURA-v1.1/train/XR_HAND/patient11184/study2_negative/", "0"],
]
VALID_STUDIES = [["MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/", "1"]]
EXPECTED = [  # split, part, patient, study, its folder, image, label
    ("train", "train", "XR_SHOULDER", "00001", "study1", "study1_positive", "image1.png", 1),
    ("train", "train", "XR_SHOULDER", "00001", "study1", "study1_positive", "image2.png", 1),
    ("train", "train", "XR_ELBOW", "00001", "study1", "study1_negative", "image1.png", 0),
    ("train", "train", "XR_HAND", "11184", "study2", "study2_negative", "image10.png", 0),
    ("val", "valid", "XR_WRIST", "11185", "study1", "study1_positive", "image1.png", 1),
]


@pytest.fixture
def mura(tmp_path, write_csv):
    """Writes the four lists, which have no header, and returns the folder that contains MURA-v1.1."""

    def write(train=TRAIN, valid=VALID, train_studies=TRAIN_STUDIES, valid_studies=VALID_STUDIES, bom=False) -> Path:
        folder = tmp_path / "with a space" / "MURA-v1.1"
        for name, images, studies in (("train", train, train_studies), ("valid", valid, valid_studies)):
            write_csv(folder / f"{name}_image_paths.csv", *([path] for path in images), bom=bom)
            write_csv(folder / f"{name}_labeled_studies.csv", *studies, bom=bom)
        return folder.parent

    return write


@pytest.mark.parametrize(("given", "below"), [("MURA-v1.1", ""), ("", "MURA-v1.1/")])
def test_mura_reads_the_distribution(mura, hashed, given, below):
    root = mura(bom=bool(given)) / given
    found = ADAPTERS["mura"](root)
    for record, (split, folder, part, number, study, named, image, label) in zip(found, EXPECTED, strict=True):
        patient = hashed(f"mura patient {int(number)}")
        assert record.path == root / f"{below}{folder}/{part}/patient{number}/{named}/{image}"
        assert record.name == f"{below}{folder}/{part}/{patient}/{named}/{image}"
        assert (record.dataset, record.split, record.view, record.labels) == ("mura", split, "", {"abnormal": label})
        assert record.patient == f"mura:{patient}"
        assert record.study == f"mura:{patient}/{part}/{study}"


def test_mura_passes_over_what_macos_leaves_behind(mura, draw):
    junk = "MURA-v1.1/train/XR_HAND/patient11184/study2_negative/._image10.png"
    root = mura(train=[*TRAIN, junk])
    draw(*(root / path for path in TRAIN))
    (root / junk).write_bytes(b"Mac OS X")
    assert len(ADAPTERS["mura"](root)) == len(EXPECTED)
    assert sorted(image_files(root)) == sorted(TRAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": [*TRAIN, TRAIN[1]]},
            r"train_image_paths\.csv, line 5: same image as in train_image_paths\.csv, line 2",
        ),
        (
            {
                "valid": [VALID[0].replace("11185", "00001")],
                "valid_studies": [[VALID_STUDIES[0][0].replace("11185", "00001"), "1"]],
            },
            r"valid_image_paths\.csv, line 1: this patient is in split val here, but in split train in train_image",
        ),
        ({"train_studies": TRAIN_STUDIES[1:]}, r"train_image_paths\.csv, line 1: this study has no label in train_lab"),
        (
            {"train_studies": [[TRAIN_STUDIES[0][0], "0"]]},
            r"studies\.csv, line 1: the label contradicts the study folder",
        ),
        (
            {"train_studies": [*TRAIN_STUDIES, TRAIN_STUDIES[0]]},
            r"studies\.csv, line 4: this study already has a label",
        ),
        ({"valid": [TRAIN[0]]}, r"valid_image_paths\.csv, line 1: expected MURA-v1\.1/valid/XR_<PART>"),
        ({"train": ["MURA-v1.1/train/XR_HAND/Jane00001/study1_positive/image1.png"]}, "line 1: expected MURA"),
        ({"train_studies": [["MURA-v1.1/train/XR_HAND/Jane00001/", "1"]]}, r"studies\.csv, line 1: expected MURA"),
        ({"train_studies": [[TRAIN_STUDIES[0][0]]]}, r"studies\.csv, line 1: expected 2 fields"),
    ],
)
def test_mura_refuses_a_row_by_its_line_and_quotes_nothing(mura, change, message):
    root = mura(**change)
    with pytest.raises(DatasetError, match=message) as caught:
        ADAPTERS["mura"](root)
    assert not re.search(r"00001|1118\d|Jane", str(caught.value).replace(str(root), ""))


def test_mura_names_what_is_missing(mura):
    root = mura()
    (root / "MURA-v1.1" / "valid_labeled_studies.csv").unlink()
    with pytest.raises(DatasetError, match=r"valid_labeled_studies\.csv is missing"):
        ADAPTERS["mura"](root)
