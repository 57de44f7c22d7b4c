"""`ImageStore`: batches, selections and labels compared with the files; damaged stores."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare

SIZE = 6
FIRST = "path,patient,split,nodule,grade\n0.png,a,train,1,\n1.png,a,train,0,5\n2.png,b,test,,6\n"


@pytest.fixture(scope="module")
def store_and_pixels(tmp_path_factory):
    """A store of three images from `folder` and two from `knee_kl`, and their pixels [5, 6, 6]."""
    root = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
    (root / "knee" / "images").mkdir(parents=True)
    (root / "films").mkdir()
    for number, name in enumerate(("films/0", "films/1", "films/2", "knee/images/3", "knee/images/4")):
        Image.fromarray(pixels[number]).save(root / f"{name}.png")
    (root / "films" / "labels.csv").write_text(FIRST)
    (root / "knee" / "labels.csv").write_text("image,subject,side,kl_grade,split\n3.png,1,L,4,train\n4.png,2,R,0,val\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_PATIENT_KEY", str(root / "key"))
        sources = [("folder", root / "films"), ("knee_kl", root / "knee")]
        prepare(sources, root / "store", SIZE, workers=1, progress=False)
    return root / "store", pixels


@pytest.mark.parametrize("device", [None, "cpu", "cuda"])
@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_rows_are_gathered_as_a_batch(store_and_pixels, device, kind):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    path, pixels = store_and_pixels
    store = ImageStore.open(path)
    store = store.to(device) if device else store
    batch = store[kind([4, 0, 0])]
    assert (batch.dtype, batch.shape) == (torch.uint8, (3, 1, SIZE, SIZE))
    assert batch.device.type == (device or "cpu")
    np.testing.assert_array_equal(batch[:, 0].cpu(), pixels[[4, 0, 0]])
    batch.zero_()  # a batch is a copy, so the store does not change
    np.testing.assert_array_equal(store[[4]][0, 0].cpu(), pixels[4])
    assert (len(store), store.size) == (5, SIZE)


def test_selection_labels_and_patients(store_and_pixels):
    path, _ = store_and_pixels
    store = ImageStore.open(path)
    assert store.select().tolist() == [0, 1, 2, 3, 4]
    assert store.select().dtype == np.int64
    assert store.select(dataset="knee_kl").tolist() == [3, 4]
    assert store.select(split="train").tolist() == [0, 1, 3]
    assert store.select(split=("test", "val")).tolist() == [2, 4]
    assert store.select({"folder"}, "train").tolist() == [0, 1]
    assert store.select("chestxray14").tolist() == []
    nan = np.nan
    labels = store.labels(["grade", "kl_grade", "nodule", "cough"])
    assert labels.dtype == np.float32
    expected = [
        [nan, nan, 1, nan],
        [5, nan, 0, nan],
        [6, nan, nan, nan],
        [nan, 4, nan, nan],
        [nan, 0, nan, nan],
    ]
    np.testing.assert_array_equal(labels, expected)
    assert store.patients[3:].tolist() == ["knee_kl:1", "knee_kl:2"]
    assert store.patients[0] == store.patients[1] != store.patients[2]
    assert store.index["path"].to_pylist()[3] == "images/3.png"
    assert store.sha256 == hashlib.sha256((path / "index.parquet").read_bytes()).hexdigest()


def describe(store: Path, **changes) -> None:
    file = store / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_store_of_format_2_has_defaults_for_the_new_columns(store_and_pixels, tmp_path):
    old = tmp_path / "store"
    shutil.copytree(store_and_pixels[0], old)
    whole = ImageStore.open(old)
    assert whole.index["body_part"].to_pylist() == ["", "", "", "knee", "knee"]
    index = whole.index.drop_columns(["body_part", "source", "pretraining_only"])
    pq.write_table(index, old / "index.parquet")
    sha256 = hashlib.sha256((old / "index.parquet").read_bytes()).hexdigest()
    describe(old, format=2, index_sha256=sha256, plan={})
    store = ImageStore.open(old)
    assert store.sha256 == sha256
    assert store.index.schema == whole.index.schema
    assert store.index["body_part"].to_pylist() == [""] * 5
    assert store.sources.tolist() == whole.sources.tolist() == ["folder"] * 3 + ["knee_kl"] * 2
    assert store.pretraining_only.tolist() == whole.pretraining_only.tolist() == [False] * 5
    assert store.data_sets() == whole.data_sets() == {}


def longer(store: Path) -> None:
    images = np.load(store / "images.npy")
    np.save(store / "images.npy", np.concatenate([images, images[:1]]))


def both_longer(store: Path) -> None:
    longer(store)
    describe(store, images=6)


def flipped(store: Path) -> None:
    table = bytearray((store / "index.parquet").read_bytes())
    table[len(table) // 2] ^= 1
    (store / "index.parquet").write_bytes(table)


def other_index(store: Path) -> None:
    shutil.copy(store / "refused.parquet", store / "index.parquet")
    describe(store, index_sha256=hashlib.sha256((store / "index.parquet").read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "store.json").unlink(), r"store\.json missing"),
        (lambda s: (s / "images.npy").unlink(), r"images\.npy missing"),
        (lambda s: (s / "store.json").write_text("{"), "damaged"),
        (lambda s: (s / "store.json").write_text("[]"), "damaged"),
        (lambda s: (s / "store.json").write_text('{"format": 2}'), "damaged"),
        (lambda s: describe(s, format=1), "expected a store of format 2 to 3, found format 1"),
        (lambda s: describe(s, shard={"number": 3, "of": 16}), "shard 3 of 16"),
        (lambda s: describe(s, size=7), r"expected uint8 \(5, 7, 7\).*found uint8 \(5, 6, 6\)"),
        (lambda s: (s / "images.npy").write_bytes((s / "images.npy").read_bytes()[:-1]), "damaged"),
        (lambda s: (s / "images.npy").write_bytes(b""), "damaged"),
        (lambda s: np.save(s / "images.npy", np.zeros((5, 6, 6), np.int8)), "int8"),
        (longer, r"found uint8 \(6, 6, 6\)"),
        (both_longer, "does not have one row per image"),
        (flipped, "sha256"),
        (other_index, "lacks a column"),
    ],
)
def test_a_damaged_store_is_refused(store_and_pixels, tmp_path, damage, message):
    store = tmp_path / "store"
    shutil.copytree(store_and_pixels[0], store)
    ImageStore.open(store)
    damage(store)
    with pytest.raises(DatasetError, match=message) as caught:
        ImageStore.open(store)
    assert str(store) in str(caught.value)


def test_a_flipped_bit_of_the_array_is_found_by_verify(store_and_pixels, tmp_path):
    ImageStore.open(store_and_pixels[0]).verify()
    store = tmp_path / "store"
    shutil.copytree(store_and_pixels[0], store)
    array = bytearray((store / "images.npy").read_bytes())
    array[-1] ^= 1
    (store / "images.npy").write_bytes(array)
    opened = ImageStore.open(store)
    with pytest.raises(DatasetError, match=r"images\.npy does not match its sha256 in store\.json"):
        opened.verify()
