"""The leakage check: lists of every form against counts by hand, and real lists against sets of names."""

import csv
import json
import time
from pathlib import Path

import pytest

from c2l_models import get_weights
from c2l_models.errors import C2LError, WeightsCorrupted, WeightsNotFound
from c2l_models.releases.leakage import NOT_SEEN, SEEN, UNDECIDED, UNKNOWN, Leakage, check_leakage
from c2l_models.releases.record import Weights

UUID = "0004cfab-14fd-4e49-80ba-63a80b6bddd6"
OTHER_UUID = "0100515c-5204-4f31-98e0-f35e4b00004a"


def weights_that_saw(
    folder: Path, patients: object, trained_on: tuple[str, ...] = ("chestxray14 train_val: 4 images",)
):
    """A record with provenance; its weight file is never read."""
    path = folder / "resnet18.a.safetensors"
    path.touch()
    path.with_suffix(".json").write_text(json.dumps({"sha256": "", "patients": patients}))
    numbers = {"num_params": 1, "mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 64, 64)}
    return Weights("resnet18", "a", trained_on=trained_on, recipe="", license="", sha256="", location=path, **numbers)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    seen = {
        "chestxray14": ["chestxray14:00000001", "chestxray14:00001336"],
        "knee_kl": ["knee_kl:9000099"],
        "fracatlas": ["fracatlas:IMG0000044"],
        "shoulder_implants": ["shoulder_implants:images/Depuy.7.jpg"],
    }
    return weights_that_saw(tmp_path, seen, tuple(f"{name} train: 4 images" for name in seen))


def check(tmp_path: Path, weights: Weights, text: str | bytes, **options: object) -> Leakage:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_leakage(path, weights, **options)


@pytest.mark.parametrize(
    ("field", "verdict"),
    [
        ("00001336_000.png", SEEN),
        ("00001336_012", SEEN),
        ("00001336_000.PNG", SEEN),
        ("films/images_001/images/00001336_000.png", SEEN),
        (r"D:\films\00001336_000.png", SEEN),
        ("00001336_000.nii.gz", SEEN),
        ("my films/00000002_000/00001336_000.png", SEEN),
        ("1336", SEEN),
        ("00001336", SEEN),
        ("chestxray14:00001336", SEEN),
        ("chestxray14:1336", SEEN),
        ("chestxray14:00001336_000.png", SEEN),
        ("9000099L.jpg", SEEN),
        ("knees/9000099R.png", SEEN),
        ("9000099", SEEN),
        ("knee_kl:9000099", SEEN),
        ('"00001336_000.png"', SEEN),
        ("IMG0000044.jpg", SEEN),
        ("Fractured/img0000044.JPG", SEEN),
        ("fracatlas:IMG0000044", SEEN),
        ("Depuy.7.jpg", SEEN),
        ("films/depuy.7.JPG", SEEN),
        ("shoulder_implants:images/Depuy.7.jpg", SEEN),
        ("IMG0000045.jpg", UNDECIDED),
        ("Depuy.70.jpg", UNDECIDED),
        ("00001337_000.png", NOT_SEEN),
        ("1337", NOT_SEEN),
        ("knee_kl:9000100", NOT_SEEN),
        ("mura:00001", NOT_SEEN),
        (f"{UUID}.dcm", UNDECIDED),
        (UUID.upper(), UNDECIDED),
        (f"rsna:{UUID}", UNDECIDED),
        ("chestxray14:one", UNKNOWN),
        ("chestxray14:9000099", UNKNOWN),
        ("chestxray:00001336", UNKNOWN),
        ("30806", UNKNOWN),
        ("0", UNKNOWN),
        ("IMG_0044.jpg", UNKNOWN),
        ("IMG1000044.jpg", UNKNOWN),
        ("Depuy.jpg", UNKNOWN),
        ("fracatlas:44", UNKNOWN),
        ("8000099", UNKNOWN),
        ("00001336_000_mask.png", UNKNOWN),
        ("x00001336_000.png", UNKNOWN),
        ("Smith 1336", UNKNOWN),
        ("a/00001336_000.png b/00000002_000.png", UNKNOWN),
        ("['a/00001336_000.png', 'a/00000002_000.png", UNKNOWN),
        (r"a\9000099L|a\00000002_000.png", UNKNOWN),
    ],
)
def test_each_form(field: str, verdict: str, tmp_path: Path, weights: Weights) -> None:
    found = check(tmp_path, weights, f"00000002_000.png\n{field}\n")
    assert found.verdicts == [NOT_SEEN, verdict]


def test_counts_are_of_different_images_and_patients(tmp_path: Path, weights: Weights) -> None:
    text = "00001336_000.png\n00001336_001.png\na/00001336_000.png\n00000001_000.png\n00000007_000.png\nnothing 1\n"
    found = check(tmp_path, weights, text)
    assert found.verdicts == [SEEN] * 4 + [NOT_SEEN, UNKNOWN]
    assert found.images == {SEEN: 3, NOT_SEEN: 1}
    assert found.patients == {SEEN: 2, NOT_SEEN: 1}
    assert found.seen == ["chestxray14:00000001", "chestxray14:00001336"]
    assert found.lines(UNKNOWN) == [6]


BODY = ["00001336_000.png", "00000007_000.png", "00000007_000.png", "9000099L.jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", [None, "Image Index"], ids=["no header", "header"])
@pytest.mark.parametrize("delimiter", ["", ",", ";", "\t"], ids=["lines", "comma", "semicolon", "tab"])
def test_every_way_to_write_a_list(
    end: str, encoding: str, header: str | None, delimiter: str, tmp_path: Path, weights: Weights
) -> None:
    lines = [header, *BODY] if header else BODY
    rows = [f"12{delimiter}{line}{delimiter}Ärger" for line in lines] if delimiter else lines
    if header and delimiter:
        rows[0] = delimiter.join(("age", header, "label"))
    text = end.join(rows) + end + end
    found = check(tmp_path, weights, text.encode(encoding))
    assert found.verdicts == [SEEN, NOT_SEEN, NOT_SEEN, SEEN]
    assert found.listed.lines == [n + bool(header) for n in (1, 2, 3, 4)]
    assert found.listed.column == (header or ("2" if delimiter else "1"))
    assert found.write_cleaned(tmp_path / "clean.csv") == 2
    kept = [rows[i] for i in ((0, 2, 3) if header else (1, 2))]
    assert (tmp_path / "clean.csv").read_bytes() == (end.join(kept) + end).encode()
    again = check_leakage(tmp_path / "clean.csv", weights)
    assert again.verdicts == [NOT_SEEN] * 2


def test_quoted_fields_and_a_last_line_without_end(tmp_path: Path, weights: Weights) -> None:
    text = 'note,image\n"two\nlines, a comma",00001336_000.png\n"say ""a""",00000007_000.png'
    found = check(tmp_path, weights, text)
    assert found.verdicts == [SEEN, NOT_SEEN]
    found.write_cleaned(tmp_path / "clean.csv")
    with (tmp_path / "clean.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["note", "image"], ['say "a"', "00000007_000.png"]]


def test_lines_that_end_with_a_carriage_return(tmp_path: Path, weights: Weights) -> None:
    """As in "CSV (Macintosh)" of Excel."""
    assert check(tmp_path, weights, "a/00001336_000.png\ra/00000007_000.png\r").verdicts == [SEEN, NOT_SEEN]
    found = check(tmp_path, weights, "image,age\r00001336_000.png,1\r00000007_000.png,2\r")
    assert (found.verdicts, found.listed.lines) == ([SEEN, NOT_SEEN], [2, 3])
    found.write_cleaned(tmp_path / "clean.csv")
    assert (tmp_path / "clean.csv").read_bytes() == b"image,age\n00000007_000.png,2\n"


def test_numbers_that_are_no_patients_are_not_taken_for_some(tmp_path: Path, weights: Weights) -> None:
    assert check(tmp_path, weights, "age,patient_id\n1,1336\n7,7\n").verdicts == [SEEN, NOT_SEEN]
    assert check(tmp_path, weights, "age,patient_id\n1,7\n", column="age").verdicts == [SEEN]
    assert check(tmp_path, weights, "1,7\n2,7\n", column="2").verdicts == [NOT_SEEN] * 2
    with pytest.raises(C2LError, match=r"found none among 2 columns; choose one with --column"):
        check(tmp_path, weights, "age,weight\n1,7\n")
    with pytest.raises(C2LError, match="expected a column's name or a number from 1 to 2 as --column, found 'patient'"):
        check(tmp_path, weights, "age,weight\n1,7\n", column="patient")


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_rsna_images_by_their_mapping(kind: str, tmp_path: Path, weights: Weights) -> None:
    pairs = {UUID: "00001336_003.png", OTHER_UUID: "00000007_000.png"}
    mapping = tmp_path / f"mapping.{kind}"
    if kind == "csv":
        mapping.write_text("patientId,Image Index\n" + "".join(f"{a},{b}\n" for a, b in pairs.items()))
    else:
        mapping.write_text(json.dumps([{"subset_img_id": a, "img_id": b} for a, b in pairs.items()]))
    text = f"patientId,x,Target\n{UUID},1,1\n{UUID},2,1\n{OTHER_UUID},,0\n{UUID[:-1]}0,,0\n"
    found = check(tmp_path, weights, text, rsna_mapping=mapping)
    assert found.verdicts == [SEEN, SEEN, NOT_SEEN, UNDECIDED]
    assert (found.images, found.patients[SEEN]) == ({SEEN: 1, NOT_SEEN: 1, UNDECIDED: 1}, 1)
    assert check(tmp_path, weights, text).verdicts == [UNDECIDED] * 4


def test_what_is_no_mapping(tmp_path: Path, weights: Weights) -> None:
    for text in ("", "a,b\n1,2\n", "[1]", "patientId,Image Index\nx,y\n", "[{]"):
        (tmp_path / "mapping.csv").write_text(text)
        with pytest.raises(C2LError, match=r"mapping\.csv: expected a CSV .*found no mapping of RSNA images"):
            check(tmp_path, weights, "1336\n", rsna_mapping=tmp_path / "mapping.csv")


def test_a_set_whose_patients_are_secret_cannot_be_told(tmp_path: Path) -> None:
    weights = weights_that_saw(
        tmp_path, {"chestxray14": ["chestxray14:00000001"]}, ("chestxray14 train_val: 1", "chexpert train: 9 images")
    )
    found = check(tmp_path, weights, "chexpert:12\nmura:12\n00000002_000.png\n")
    assert found.verdicts == [UNDECIDED, NOT_SEEN, NOT_SEEN]
    assert found.unlisted == ["chexpert"]


@pytest.mark.parametrize(
    ("before", "verdict", "unlisted"),
    [
        ({"name": "mine", "trained_on": []}, NOT_SEEN, []),
        ({"name": "mine", "trained_on": [], "patients": None}, UNDECIDED, ["chestxray14"]),
        ({"name": "random", "source": {"name": "mine", "patients": None}}, UNDECIDED, ["chestxray14"]),
    ],
)
def test_patients_of_earlier_weights(tmp_path: Path, before: dict, verdict: str, unlisted: list[str]) -> None:
    """They are in the lists of the release, unless the provenance says that some are unknown."""
    lines = ("chestxray14 train: 1 image", "initialized from mine (licence: CC (BY)): chestxray14 train: 9 images")
    weights = weights_that_saw(tmp_path, {"chestxray14": ["chestxray14:00000001"]}, lines)
    path = weights.provenance_path()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"initialization": before}))
    found = check(tmp_path, weights, "00000001_000.png\n00000002_000.png\n")
    assert (found.verdicts, found.unlisted) == ([SEEN, verdict], unlisted)


def test_photographs_have_no_patients(tmp_path: Path) -> None:
    lines = ("knee_kl train: 1 image", "initialized from x (licence: MIT): imagenet-1k train: photographs")
    found = check(tmp_path, weights_that_saw(tmp_path, {"knee_kl": ["knee_kl:9000099"]}, lines), f"{UUID}\n")
    assert (found.verdicts, found.unlisted) == ([NOT_SEEN], [])


def test_what_is_refused(tmp_path: Path, weights: Weights) -> None:
    with pytest.raises(C2LError, match=r"list\.csv: expected image names or patient ids .*found none in 2 names"):
        check(tmp_path, weights, "a 1\nb 2\n")
    with pytest.raises(C2LError, match="found an empty list"):
        check(tmp_path, weights, " \n\n")
    with pytest.raises(C2LError, match="expected UTF-8 text"):
        check(tmp_path, weights, b"\x89PNG\xff\xfe")
    with pytest.raises(C2LError, match=r"absent\.csv: cannot read the list of images or patients: No such file"):
        check_leakage(tmp_path / "absent.csv", weights)
    for patients, error in (([], WeightsCorrupted), ({"chestxray14": 3}, WeightsCorrupted)):
        with pytest.raises(error, match="damaged, expected patients as lists"):
            check(tmp_path, weights_that_saw(tmp_path, patients), "1336\n")
    (tmp_path / "resnet18.a.json").write_text('{"sha256": ""}')
    with pytest.raises(
        WeightsNotFound,
        match=r"expected a list of the patients in .*resnet18\.a\.json, found none: .* converted weights",
    ):
        check(tmp_path, weights, "1336\n")


@pytest.mark.parametrize("with_mapping", [False, True])
def test_a_release_that_saw_rsna_images_under_their_own_ids(with_mapping: bool, tmp_path: Path) -> None:
    """Published ids count with or without a mapping; an unmapped RSNA image leaves ChestX-ray14 patients undecided."""
    saw = weights_that_saw(tmp_path, {"rsna": [f"rsna:{UUID}", f"rsna:{OTHER_UUID}"]}, ("rsna train: 2 images",))
    mapping = tmp_path / "mapping.csv"
    mapping.write_text(f"patientId,Image Index\n{UUID},00001336_000.png\n")
    options = {"rsna_mapping": mapping} if with_mapping else {}
    found = check(tmp_path, saw, f"{UUID}\n00001336_004.png\n00000002_000.png\n", **options)
    assert found.verdicts == [SEEN, SEEN if with_mapping else UNDECIDED, UNDECIDED]
    mapping.write_text(f"patientId,Image Index\n{UUID},00001336_000.png\n{OTHER_UUID},00000005_000.png\n")
    assert check(tmp_path, saw, "00000002_000.png\n", rsna_mapping=mapping).verdicts == [NOT_SEEN]


def test_ages_are_no_patients(tmp_path: Path, weights: Weights) -> None:
    with pytest.raises(C2LError, match="found none among 3 columns; choose one with --column"):
        check(tmp_path, weights, "path,Patient Age,Finding\na.png,34,x\nb.png,57,y\n")
    found = check(tmp_path, weights, "file,Patient ID\na.png,1336\nb.png,2\n")
    assert found.verdicts == [SEEN, NOT_SEEN]
    assert "2 bare numbers were read as patient numbers" in str(found)


def test_every_name_of_a_row_is_judged(tmp_path: Path, weights: Weights) -> None:
    text = "image,prior\n00000002_000.png,00001336_000.png\n00000002_001.png,00000003_000.png\n"
    assert check(tmp_path, weights, text).verdicts == [SEEN, NOT_SEEN]
    assert check(tmp_path, weights, text, column="image").verdicts == [NOT_SEEN, NOT_SEEN]


@pytest.mark.parametrize(
    "name", ["99999999_001.png", "00040000_000.png", "00000000_000.png", "００００１３３６_000.png"]
)
def test_names_that_are_none_of_the_set_are_not_cleared(name: str, tmp_path: Path, weights: Weights) -> None:
    found = check(tmp_path, weights, f"00000002_000.png\n{name}\n")
    assert found.verdicts == [NOT_SEEN, UNKNOWN]
    assert not found.all_judged


def test_a_provenance_of_other_weights_is_refused(tmp_path: Path, weights: Weights) -> None:
    file = weights.location.with_suffix(".json")
    for other in ({"sha256": "0" * 64}, {}):
        file.write_text(json.dumps(other | {"patients": {"chestxray14": []}}))
        with pytest.raises(WeightsCorrupted, match="expected the provenance of weights with sha256"):
            check(tmp_path, weights, "00001336_000.png\n")


def test_a_big_list_is_fast(tmp_path: Path, weights: Weights) -> None:
    text = "".join(f"images/{n % 30_000 + 1:08d}_{n // 30_000:03d}.png,No Finding,{n}\n" for n in range(100_000))
    began = time.process_time()
    found = check(tmp_path, weights, text)
    assert time.process_time() - began < 5  # about 0.5 s; a quadratic algorithm takes minutes
    assert len(found.verdicts) == 100_000
    assert found.images == {SEEN: 8, NOT_SEEN: 99_992}


def test_the_official_lists(real_data: Path) -> None:
    """The release was trained on every patient of train_val and on no patient of test."""
    weights = get_weights("resnet18.c2l_open26k")
    folder = real_data / "chestxray14"
    train = check_leakage(folder / "train_val_list.txt", weights)
    assert set(train.verdicts) == {SEEN}
    names = (folder / "train_val_list.txt").read_text().split()
    listed = set(names)
    assert (train.images, train.patients) == ({SEEN: len(names)}, {SEEN: len({name[:8] for name in names})})
    assert set(check_leakage(folder / "test_list.txt", weights).verdicts) == {NOT_SEEN}

    found = check_leakage(folder / "Data_Entry_2017_v2020.csv", weights)
    assert found.listed.column == "Image Index"
    assert [v == SEEN for v in found.verdicts] == [row[0] in listed for row in found.listed.rows]
    by_number = check_leakage(folder / "Data_Entry_2017_v2020.csv", weights, column="Patient ID")
    assert by_number.verdicts == found.verdicts

    mapping = real_data / "rsna-pneumonia" / "nih_image_index.csv"
    rsna = check_leakage(real_data / "rsna-pneumonia" / "stage_2_train_labels.csv", weights, mapping)
    seen = set(json.loads(weights.path().with_suffix(".json").read_text())["patients"]["chestxray14"])
    with mapping.open() as file:
        patients = {row["patientId"]: f"chestxray14:{row['Image Index'][:8]}" for row in csv.DictReader(file)}
    assert [v == SEEN for v in rsna.verdicts] == [patients[row[0]] in seen for row in rsna.listed.rows]
    assert 0 < sum(v == SEEN for v in rsna.verdicts) < len(rsna.verdicts)

    knees = check_leakage(real_data / "knee-kl" / "labels.csv", weights)
    assert [v == SEEN for v in knees.verdicts] == [row[4] in ("train", "val") for row in knees.listed.rows]
