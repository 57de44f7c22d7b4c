"""The images of a run and of its probe, and their order."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from c2l_models.errors import DatasetError
from c2l_models.training.batches import balance_groups, batch_rows, batches, epoch_order, fits, training_rows
from c2l_models.training.distributed import World
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.pretrain import pretrain
from c2l_models.training.probing.knn_monitor import KnnMonitor
from c2l_models.training.recipe import Recipe
from c2l_models.training.recipe_files import list_recipes, load_recipe
from c2l_models.training.store.image_store import ImageStore

STEPS_AN_EPOCH = 5


@pytest.mark.usefixtures("small_networks")
def test_no_test_row_is_ever_looked_at(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    """Neither training nor its probe reads a row of a test split."""
    read: list[np.ndarray] = []
    gather = ImageStore.__getitem__

    def watched(self, rows):
        read.append(np.asarray(rows))
        return gather(self, rows)

    monkeypatch.setattr(ImageStore, "__getitem__", watched)
    pretrain(replace(tiny_recipe, epochs=1, probe_every=1), tiny_store, tmp_path / "run", "cpu", progress=False)
    rows = np.concatenate(read)
    assert len(read) > STEPS_AN_EPOCH  # the rows of the probe are included
    assert set(np.array(tiny_store.index["split"])[rows]) == {"train"}
    batches = np.concatenate(read[:STEPS_AN_EPOCH])
    assert len(set(batches.tolist())) == STEPS_AN_EPOCH * tiny_recipe.batch_size  # each image once per epoch


def store_of(parts):
    """A store with an index and images of one pixel, from {(dataset, split): count}."""
    rows = [(dataset, split) for (dataset, split), count in parts.items() for _ in range(count)]
    patients = [str(number) for number in range(len(rows))]
    index = pa.table({"dataset": [d for d, _ in rows], "split": [s for _, s in rows], "patient": patients})
    return ImageStore(None, np.zeros((len(rows), 1, 1), np.uint8), index, "")


OPEN = {("chestxray14", "train_val"): 5, ("chestxray14", "test"): 3} | {
    ("knee_kl", split): 4 for split in ("train", "val", "test")
}
# MIMIC-CXR and MURA are used whole, as in the paper (section 3.1).
PAPERS = OPEN | {
    ("chexpert", "train"): 6,
    ("chexpert", "test"): 2,
    ("mimic_cxr", "train"): 5,
    ("mura", "train"): 3,
}


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_train_on_no_test_row(name):
    store = store_of(PAPERS | {("fracatlas", "train"): 3, ("shoulder_implants", "train"): 2})
    rows = training_rows(load_recipe(name), store)
    assert len(rows)
    assert len(set(rows.tolist())) == len(rows)
    assert "test" not in set(np.array(store.index["split"])[rows])


def test_the_open_recipe_takes_all_else_of_the_open_corpus():
    assert len(training_rows(load_recipe("open15k-resnet18"), store_of(OPEN))) == 5 + 4 + 4


def test_no_sources_are_all_but_test(tiny_store):
    rows = training_rows(Recipe("any"), tiny_store)
    assert np.array(tiny_store.index["split"])[rows].tolist() == ["train"] * 44
    assert len(training_rows(Recipe("any"), store_of(PAPERS))) == 5 + 8 + 6 + 5 + 3


def test_a_source_that_is_named_twice_is_taken_once():
    rows = training_rows(Recipe("twice", sources=("knee_kl:train", "knee_kl:train")), store_of(OPEN))
    assert len(rows) == 4


def test_a_source_that_is_not_there():
    with pytest.raises(DatasetError, match=r"mura:train.*prepare"):
        training_rows(Recipe("absent", sources=("knee_kl:train", "mura:train")), store_of(OPEN))


def test_epoch_order():
    rows, recipe = np.arange(10, 60), Recipe("order")
    orders = [epoch_order(rows, recipe, epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == rows.tolist()
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[1], epoch_order(rows, recipe, 1))
    assert not np.array_equal(orders[1], epoch_order(rows, replace(recipe, seed=1), 1))


@pytest.mark.parametrize(
    ("sizes", "batch"), [((30, 9, 4), 8), ((30, 9, 4), 6), ((20, 1), 7), ((12,), 5), ((3, 3, 3), 2)]
)
def test_balanced_batches_have_equally_many_rows_of_each_group(sizes, batch):
    groups = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = 100 + np.arange(len(groups))
    recipe = Recipe("balanced", batch_size=batch, batch_norm_group=batch)
    for epoch in range(3):
        order = epoch_order(rows, recipe, epoch, groups)
        assert len(order) == len(rows) // batch * batch
        used = dict.fromkeys(rows.tolist(), 0)
        for start in range(0, len(order), batch):
            shares = [0] * len(sizes)
            for row in order[start : start + batch].tolist():
                shares[groups[row - 100]] += 1
                used[row] += 1
            assert max(shares) - min(shares) <= 1
        for group in range(len(sizes)):  # no row is used again before all of its group have been
            counts = [count for row, count in used.items() if groups[row - 100] == group]
            assert max(counts) - min(counts) <= 1
        assert np.array_equal(order, epoch_order(rows, recipe, epoch, groups))
    assert not np.array_equal(order, epoch_order(rows, recipe, 1, groups))
    assert not np.array_equal(order, epoch_order(rows, replace(recipe, seed=1), 2, groups))


def test_a_group_is_in_all_places_of_a_batch():
    groups = np.repeat([0, 1], 400)
    order = epoch_order(np.arange(800), Recipe("balanced", batch_size=8, batch_norm_group=8), 0, groups)
    share = groups[order].reshape(-1, 8).mean(axis=0)
    assert ((share > 0.3) & (share < 0.7)).all()  # 0.5 is expected, with a standard deviation of 0.05


@pytest.mark.usefixtures("small_networks")
def test_a_recipe_balances_its_sources(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    rows = training_rows(tiny_recipe, tiny_store)
    sources = np.full(len(tiny_store), "many", dtype=object)
    sources[rows[:5]] = "few"
    column = tiny_store.index.column_names.index("source")
    store = replace(tiny_store, index=tiny_store.index.set_column(column, "source", pa.array(sources.tolist())))
    assert balance_groups(tiny_recipe, store, rows) is None
    read: list[np.ndarray] = []
    gather = ImageStore.__getitem__
    monkeypatch.setattr(
        ImageStore, "__getitem__", lambda self, rows: read.append(np.asarray(rows)) or gather(self, rows)
    )
    recipe = replace(tiny_recipe, balance="source", probe_every=0, recalibrate=False)
    pretrain(recipe, store, tmp_path / "run", "cpu", progress=False)
    batches = [part for part in read if len(part) == recipe.batch_size][:STEPS_AN_EPOCH]
    assert [sum(sources[part] == "few") for part in batches] == [recipe.batch_size // 2] * STEPS_AN_EPOCH


CPU = torch.device("cpu")
STEPS = 10


def test_each_batch_is_the_next_part_of_the_epochs_order(tiny_recipe, tiny_store):
    rows = training_rows(tiny_recipe, tiny_store)
    found = list(batches(tiny_store, rows, tiny_recipe, CPU, last=STEPS))
    assert len(found) == STEPS == 2 * STEPS_AN_EPOCH
    for step, batch in enumerate(found):
        epoch, position = divmod(step, STEPS_AN_EPOCH)
        expected = epoch_order(rows, tiny_recipe, epoch)[8 * position : 8 * position + 8]
        assert np.array_equal(batch.rows, expected)
        assert np.array_equal(batch_rows(rows, tiny_recipe, step), expected)
        assert torch.equal(batch.images[:, 0], torch.from_numpy(tiny_store.images[expected]))
        assert batch.waited >= 0


@pytest.mark.parametrize("balanced", [False, True])
def test_batches_go_on_from_any_step_on_any_number_of_processes(tiny_recipe, tiny_store, balanced):
    rows = training_rows(tiny_recipe, tiny_store)
    groups = (np.arange(len(rows)) % 7 > 4).astype(int) if balanced else None
    whole = list(batches(tiny_store, rows, tiny_recipe, CPU, last=STEPS, groups=groups))
    for step, batch in enumerate(whole):
        assert np.array_equal(batch.rows, batch_rows(rows, tiny_recipe, step, groups))
    for first in (0, 3, 5, 9, 10):
        for size in (1, 2, 4):
            shares = [
                list(batches(tiny_store, rows, tiny_recipe, CPU, World(rank, size), first, STEPS, groups))
                for rank in range(size)
            ]
            assert [len(share) for share in shares] == [len(whole) - first] * size
            for step, parts in enumerate(zip(*shares, strict=True), start=first):
                assert torch.equal(torch.cat([part.images for part in parts]), whole[step].images)
                assert torch.equal(torch.cat([part.rows for part in parts]), whole[step].rows)


def test_batches_are_read_ahead_but_not_far(tiny_recipe, tiny_store, monkeypatch):
    """While a step computes, a few next batches are gathered, but not the whole store."""
    gathered = []
    gather = ImageStore.__getitem__
    monkeypatch.setattr(ImageStore, "__getitem__", lambda self, rows: gathered.append(1) or gather(self, rows))
    upcoming = batches(tiny_store, training_rows(tiny_recipe, tiny_store), tiny_recipe, CPU)
    next(upcoming)
    deadline = time.monotonic() + 5
    while len(gathered) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(gathered) == 3
    upcoming.close()


def test_a_broken_store_breaks_the_run_and_not_just_its_reader(tiny_recipe, tiny_store, monkeypatch):
    def broken(self, rows):
        raise OSError("the disk is gone")

    monkeypatch.setattr(ImageStore, "__getitem__", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches(tiny_store, training_rows(tiny_recipe, tiny_store), tiny_recipe, CPU))


def test_the_cpu_maps_a_store_as_it_is(tiny_store):
    assert not fits(tiny_store, CPU)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_cuda
@pytest.mark.parametrize("resident", [True, False])
def test_a_gpu_gets_the_same_batches_resident_or_streamed(tiny_recipe, tiny_store, monkeypatch, resident):
    monkeypatch.setattr("c2l_models.training.batches.fits", lambda *_: resident)
    rows = training_rows(tiny_recipe, tiny_store)
    for here, there in zip(
        batches(tiny_store, rows, tiny_recipe, CPU, last=STEPS),
        batches(tiny_store, rows, tiny_recipe, torch.device("cuda"), last=STEPS),
        strict=True,
    ):
        assert there.images.is_cuda
        assert there.rows.is_cuda
        assert torch.equal(there.rows.cpu(), here.rows)
        assert torch.equal(there.images.cpu(), here.images)


def test_held_out_patients_are_left_out(tiny_recipe, tiny_store):
    all_rows = training_rows(tiny_recipe, tiny_store)
    rows = training_rows(replace(tiny_recipe, hold_out=0.4), tiny_store)
    left_out = np.setdiff1d(all_rows, rows)
    assert 0.2 < len(left_out) / len(all_rows) < 0.6
    assert not set(tiny_store.patients[rows]) & set(tiny_store.patients[left_out])


@pytest.mark.usefixtures("small_networks")
def test_the_probe_changes_nothing(tiny_recipe, tiny_store):
    c2l = C2L(tiny_recipe).train()
    before = {name: value.clone() for name, value in c2l.state_dict().items()}
    random = torch.get_rng_state()
    monitor = KnnMonitor(tiny_recipe, tiny_store, training_rows(tiny_recipe, tiny_store))
    first, second = monitor(c2l.student.backbone), monitor(c2l.student.backbone)
    assert first == second
    assert first.keys() == {"folder"}
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in c2l.modules())
    for name, value in c2l.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bank_and_queries_share_no_patient(tiny_recipe, tiny_store):
    monitor = KnnMonitor(tiny_recipe, tiny_store, training_rows(tiny_recipe, tiny_store))
    _, bank, queries, _ = monitor.tasks["folder"]
    assert len(bank)
    assert len(queries)
    assert not set(tiny_store.patients[bank]) & set(tiny_store.patients[queries])
