"""The k-NN monitor recalibrates batch norm if the recipe says so."""

from dataclasses import replace

import pyarrow as pa
import pytest
import timm
import torch

from c2l_models.training.batches import training_rows
from c2l_models.training.evaluation.tasks import load_tasks
from c2l_models.training.probing import knn_monitor as monitor
from c2l_models.training.probing.knn_monitor import KnnMonitor
from c2l_models.training.store.store_format import INDEX_SCHEMA


@pytest.mark.parametrize("recalibrate", [True, False])
def test_statistics_are_recalibrated_where_the_recipe_says_so(tiny_recipe, tiny_store, monkeypatch, recalibrate):
    recipe = replace(tiny_recipe, recalibrate=recalibrate)
    backbone = timm.create_model("resnet18", in_chans=1, num_classes=0)
    probed = []

    def noted(network, store, rows, *_):
        probed.append(network.bn1.running_mean.clone())
        return torch.randn(len(rows), 4).numpy()

    monkeypatch.setattr(monitor, "extract_features", noted)
    before = backbone.bn1.running_mean.clone()
    built = KnnMonitor(recipe, tiny_store, training_rows(recipe, tiny_store))
    assert built(backbone)
    assert built.title == "k-NN AUROC (of few images, mostly chance)"
    assert probed
    assert torch.equal(probed[0], before) != recalibrate
    assert torch.equal(backbone.bn1.running_mean, before)  # the trained network is unchanged


def test_a_task_without_patient_ids_is_no_measure(tiny_recipe, tiny_store):
    rows = [row | {"dataset": "shoulder_implants"} for row in tiny_store.index.to_pylist()]
    rows = [row | {"labels": [("Depuy", value) for _, value in row["labels"]]} for row in rows]
    store = replace(tiny_store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA))
    recipe = replace(tiny_recipe, sources=(), probe_every=1)
    assert load_tasks(store)[0].name == "shoulder_implants"
    assert not KnnMonitor(recipe, store, training_rows(recipe, store)).tasks


@pytest.mark.parametrize("sources", [("folder:*",), ("folder:train", "folder:test")])
def test_no_test_label_chooses_a_checkpoint(tiny_recipe, tiny_store, sources):
    recipe = replace(tiny_recipe, sources=sources)
    rows = training_rows(recipe, tiny_store)
    splits = tiny_store.index["split"].to_pylist()
    assert "test" in [splits[row] for row in rows]  # the run trains on them, without labels
    ((_, bank, queries, _),) = KnnMonitor(recipe, tiny_store, rows).tasks.values()
    assert {splits[row] for row in [*bank, *queries]} == {"train"}
    only = KnnMonitor(recipe, tiny_store, training_rows(replace(recipe, sources=("folder:test",)), tiny_store))
    assert not only.tasks
