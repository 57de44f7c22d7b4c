"""`StoreDataset`: samples compared with the files, through a DataLoader with and without worker processes."""

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from store_helpers import SIZE, prepare_folder, write_image
from torch.utils.data import DataLoader

import c2l_models
from c2l_models.errors import DatasetError
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.torch_dataset import Sample, StoreDataset

LABELS = {"a.png": ("train", "1", ""), "b.png": ("test", "0", "2"), "c.png": ("train", "", "3")}
"""Split, nodule and grade of each image."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three images, and the folder `films` beside it."""
    root = tmp_path_factory.mktemp("dataset")
    for number, name in enumerate(LABELS):
        write_image(root / "films" / name, number)
    with (root / "films" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "split", "nodule", "grade"),
                                    *((name, name, *values) for name, values in LABELS.items())])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_PATIENT_KEY", str(root / "key"))
        prepare_folder(root / "films", root / "store")
    return root


def pixels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "films" / name))


def test_samples_are_the_files_pixels_labels_and_rows(folder: Path) -> None:
    store = ImageStore.open(folder / "store")
    dataset = StoreDataset(store, ["grade", "nodule"], store.select(split="train"))
    assert len(dataset) == 2
    for index, name in enumerate(("a.png", "c.png")):
        image, labels, row = dataset[index]
        assert (image.dtype, image.shape) == (torch.uint8, (1, SIZE, SIZE))
        np.testing.assert_array_equal(image[0], pixels(folder, name))
        _, nodule, grade = LABELS[name]
        np.testing.assert_array_equal(labels, np.array([float(grade or "nan"), float(nodule or "nan")], np.float32))
        assert type(row) is int
        assert store.index["path"][row].as_py() == name
    assert dataset[-1].row == dataset[1].row
    with pytest.raises(IndexError):
        dataset[2]
    dataset[0].labels.zero_()  # a sample is a copy
    assert dataset.labels[0, 1] == 1


@pytest.mark.parametrize("rows", [[2, 0], np.array([2.0, 0.0]), torch.tensor([2, 0]), np.array([2, 0], np.uint8)])
def test_row_numbers_of_any_type(folder: Path, rows: Any) -> None:
    dataset = StoreDataset(folder / "store", rows=rows)
    assert dataset.rows.dtype == np.int64
    assert dataset.rows.tolist() == [2, 0]
    assert len(StoreDataset(folder / "store", rows=[])) == 0


def test_all_rows_without_labels(folder: Path) -> None:
    dataset = StoreDataset(folder / "store")
    assert [sample.row for sample in (dataset[0], dataset[1], dataset[2])] == [0, 1, 2]
    assert dataset[0].labels.shape == (0,)


def test_an_image_for_pretraining_only_has_no_labels(folder: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_PATIENT_KEY", str(tmp_path / "key"))
        prepare_folder(folder / "films", tmp_path / "store", pretraining_only=["folder:b.png"])
    dataset = StoreDataset(tmp_path / "store", ["nodule"])
    assert dataset[0].labels.item() == 1
    assert np.isnan(dataset[1].labels.item())  # 0 in the file


def test_the_transform_of_weights_gives_the_networks_input(folder: Path) -> None:
    weights = c2l_models.get_weights("resnet18.imagenet")
    dataset = StoreDataset(folder / "store", transform=weights.transform(in_chans=1))
    side = weights.input_size[-1]
    assert dataset[0].image.shape == (1, side, side)
    by_file = weights.transform(in_chans=1)(folder / "films" / "a.png")
    torch.testing.assert_close(dataset[0].image, by_file, rtol=0, atol=0)  # the store's side is the file's
    assert abs(dataset[0].image.mean().item() - (pixels(folder, "a.png").mean() / 255 - 0.5) / 0.25) < 0.05


@pytest.mark.parametrize("start", [None, "spawn"])  # spawn: macOS and Windows
def test_a_loader_returns_batches_of_samples(folder: Path, start: str | None) -> None:
    dataset = StoreDataset(folder / "store", ["nodule"])
    workers = {"num_workers": 1, "multiprocessing_context": start} if start else {}
    (batch,) = DataLoader(dataset, batch_size=3, **workers)
    assert isinstance(batch, Sample)
    np.testing.assert_array_equal(batch.image[:, 0], np.stack([pixels(folder, name) for name in LABELS]))
    np.testing.assert_array_equal(batch.labels, np.array([[1], [0], [np.nan]], np.float32))
    assert batch.row.tolist() == [0, 1, 2]


def test_a_worker_receives_no_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore.open(folder / "store")
    sent = pickle.dumps(StoreDataset(store, ["grade"], [2]))
    assert store.images.tobytes()[:SIZE] not in sent
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again[0].image[0], pixels(folder, "c.png"))
    with pytest.raises(pickle.PicklingError, match="num_workers=0"):
        pickle.dumps(StoreDataset(store.to("meta")))


def test_another_store_in_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("films", "others"):
        write_image(tmp_path / name / "0.png", 1 + len(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_PATIENT_KEY", str(tmp_path / "key"))
        prepare_folder(tmp_path / "films", tmp_path / "store")
        sent = pickle.dumps(StoreDataset(tmp_path / "store"))
        (tmp_path / "store").rename(tmp_path / "old")
        prepare_folder(tmp_path / "others", tmp_path / "store")
    with pytest.raises(DatasetError, match="expected the store with index"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    ("labels", "rows", "said"),
    [
        ([], [0, 3], "from 0 to 2 .*found 3"),
        ([], [-1], "found -1"),
        ([], [1, 1.5], "found 1.5"),
        ([], [float("nan")], "found nan"),
        ([], [True, False, True], r"found values of type bool; .* np\.flatnonzero\(mask\)"),
        ([], np.array([True, False, None]), "found values of type object"),
        (["cough"], None, "'cough'"),
        (["grade"], [0], "'grade'"),
    ],
)
def test_wrong_rows_and_labels(folder: Path, labels: list[str], rows: Any, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        StoreDataset(folder / "store", labels, rows)
