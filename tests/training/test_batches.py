"""Which images a run looks at, in which order, and the probe that goes with it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from c2l_models.errors import DatasetError
from c2l_models.training.batches import epoch_order, training_rows
from c2l_models.training.evaluation.monitor import KnnMonitor
from c2l_models.training.image_store import ImageStore
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import Recipe, list_recipes, load_recipe

STEPS_AN_EPOCH = 5


@pytest.mark.usefixtures("small_networks")
def test_no_test_row_is_ever_looked_at(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    """Neither by the training nor by the probe that goes with it."""
    asked: list[np.ndarray] = []
    gather = ImageStore.__getitem__

    def watched(self, rows):
        asked.append(np.asarray(rows))
        return gather(self, rows)

    monkeypatch.setattr(ImageStore, "__getitem__", watched)
    pretrain(replace(tiny_recipe, epochs=1, probe_every=1), tiny_store, tmp_path / "run", "cpu", progress=False)
    rows = np.concatenate(asked)
    assert len(asked) > STEPS_AN_EPOCH  # the probe's too
    assert set(np.array(tiny_store.index["split"])[rows]) == {"train"}
    batches = np.concatenate(asked[:STEPS_AN_EPOCH])
    assert len(set(batches.tolist())) == STEPS_AN_EPOCH * tiny_recipe.batch_size  # each image once an epoch


def store_of(parts):
    """A store of nothing but an index: {(dataset, split): count}."""
    rows = [(dataset, split) for (dataset, split), count in parts.items() for _ in range(count)]
    patients = [str(number) for number in range(len(rows))]
    index = pa.table({"dataset": [d for d, _ in rows], "split": [s for _, s in rows], "patient": patients})
    return ImageStore(None, np.zeros((len(rows), 1, 1), np.uint8), index, "")


OPEN = {("chestxray14", "train_val"): 5, ("chestxray14", "test"): 3} | {
    ("knee_kl", split): 4 for split in ("train", "val", "test")
}
# MIMIC-CXR and MURA are taken whole, as the paper has it (section 3.1).
PAPERS = OPEN | {
    ("chexpert", "train"): 6,
    ("chexpert", "test"): 2,
    ("mimic_cxr", "train"): 5,
    ("mura", "train"): 3,
}


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_train_on_no_test_row(name):
    store = store_of(PAPERS)
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
    bank, queries, _ = monitor.tasks["folder"]
    assert len(bank)
    assert len(queries)
    assert not set(tiny_store.patients[bank]) & set(tiny_store.patients[queries])
