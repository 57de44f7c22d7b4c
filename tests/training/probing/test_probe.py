"""`probe`, from the name of a target to the written files."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import timm

from c2l_models.errors import DatasetError, WeightsNotFound
from c2l_models.releases.record import save_weights
from c2l_models.training.commands import frozen_features
from c2l_models.training.evaluation.classification_metrics import auroc
from c2l_models.training.evaluation.predictions import Predictions, measure, tuning_metric
from c2l_models.training.evaluation.result import Result
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.features import extract_features
from c2l_models.training.initialization import load_initialization
from c2l_models.training.patient_splits import patient_folds
from c2l_models.training.probing import probe as module
from c2l_models.training.probing.baselines import BaselineSpec
from c2l_models.training.probing.classifiers import fit_and_score
from c2l_models.training.probing.probe import probe
from c2l_models.training.store.store_format import INDEX_SCHEMA


@pytest.fixture
def two_baselines(monkeypatch):
    """Pixels, and random networks with two seeds."""
    specs = [
        BaselineSpec("pixels", seeds=(0,)),
        BaselineSpec("random", "resnet18", zero_init_last=True, recalibrated=True, seeds=(0, 1)),
    ]
    monkeypatch.setattr(module, "baseline_specs", lambda architecture: specs)


@pytest.mark.usefixtures("two_baselines")
def test_a_random_network_beside_its_floors(store, tmp_path):
    report = probe("random", store, "folder", tmp_path / "out", size=32, bootstrap=50, progress=False)
    assert list(report.cases) == ["coin", "square"]
    assert [column.name for column in report.columns] == ["random:resnet18", "pixels", "random"]
    assert report.columns[1].metrics["square"].value > 0.8
    assert len(list((store.path / "floors").iterdir())) == 2

    # The recalibrated random network of seed 0 is the same network as the target.
    random = report.columns[2]
    assert random.seeds[0] == pytest.approx(report.target.metrics["mean"].value, abs=1e-3)
    assert np.mean(random.seeds) == pytest.approx(random.metrics["mean"].value)

    # The bootstrap draws patients, not images.
    task = load_task("folder")
    test = task.test_rows(store)
    by_patient = auroc(np.zeros((40, 2)), task.labels(store)[test], store.patients[test], bootstrap=50, seed=0)
    assert report.target.metrics.sample == by_patient.sample

    result = Result.read(tmp_path / "out")
    assert (result.kind, result.initialization, result.task) == ("probe", "random:resnet18", "folder")
    np.testing.assert_array_equal(result.metrics.resamples, report.target.metrics.resamples)
    again = measure(Predictions.load(tmp_path / "out"), task, bootstrap=50)
    np.testing.assert_allclose(again.values, report.target.metrics.values)
    files = {"report.md", "report.csv", "report.png", "roc.png", "figures.npz", "predictions.npz", "result.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    facts = result.facts
    assert facts["store_sha256"] == store.sha256
    assert (facts["train_images"], facts["train_patients"]) == (40, 20)
    assert (facts["test_images"], facts["test_patients"]) == (40, 20)
    assert (facts["size"], facts["seed"], facts["bootstrap"]) == (32, 0, 50)


def test_the_seed_is_not_the_bootstraps_and_the_help_says_so(store):
    one, two = (probe("pixels", store, "folder", seed=seed, bootstrap=5, progress=False) for seed in (0, 1))
    assert one.target.metrics.sample == two.target.metrics.sample  # labels, patients, and the bootstrap's seed
    (line,) = [line for line in frozen_features.probe.__doc__.splitlines() if line.strip().startswith("seed:")]
    assert (
        line.strip() == "seed: seed of the tuning split and of a random network; the bootstrap does not depend on it."
    )


def test_pixels_are_probed_alone(store, tmp_path):
    report = probe("pixels", store, "folder", tmp_path / "out", bootstrap=5, progress=False)
    assert [column.name for column in report.columns] == ["pixels"]
    assert report.target.metrics["square"].value > 0.8
    assert "Each random network" not in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("two_baselines")
def test_neighbours_in_place_of_a_fit(store, tmp_path):
    options = {"size": 32, "bootstrap": 20, "progress": False}
    report = probe("random", store, "folder", tmp_path / "knn", **options, classifier="knn")
    assert report.title == "k-NN"
    assert report.columns[1].metrics["square"].value > 0.7
    assert Result.read(tmp_path / "knn").kind == "knn"
    shares = Predictions.load(tmp_path / "knn")
    assert shares.threshold == 0.5
    assert 0 <= shares.scores.min() <= shares.scores.max() <= 1
    linear = probe("random", store, "folder", **options)
    assert (
        linear.columns[2].metrics["coin"] != report.columns[2].metrics["coin"]
    )  # each classifier has its own cached scores


def test_a_report_says_that_the_data_have_no_patient_ids(store, tmp_path):
    rows = [
        row | {"dataset": "fracatlas", "split": "train", "labels": [("fractured", dict(row["labels"])["square"])]}
        for row in store.index.to_pylist()
    ]
    fractures = replace(store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA))
    report = probe("random", fractures, "fracatlas", tmp_path / "out", baselines=False, size=32, bootstrap=10)
    assert "This data set has no patient ids" in (tmp_path / "out" / "report.md").read_text()
    assert report.facts["note"] == load_task("fracatlas").note == Result.read(tmp_path / "out").facts["note"]
    assert list(report.cases) == ["fractured"]
    assert report.headline == "fractured"


def test_a_weight_file_is_called_by_its_name(store, tmp_path):
    network = timm.create_model("resnet18", in_chans=1, num_classes=0)
    config = {"architecture": "resnet18", "tag": "mine", "mean": 0.4, "std": 0.2, "input_size": [3, 48, 48]}
    file = tmp_path / "mine.safetensors"
    save_weights(file, network.state_dict(), config | {"trained_on": ["phantoms"], "recipe": "smoke"})
    report = probe(str(file), store, "folder", baselines=False, bootstrap=10)
    assert [column.name for column in report.columns] == ["resnet18.mine"]
    assert report.facts["size"] == 48


def test_what_is_not_there_is_named(store):
    with pytest.raises(WeightsNotFound, match="can also be a run folder"):
        probe("resnet18.no_such_release", store, "folder")
    with pytest.raises(WeightsNotFound, match="resnet19"):
        probe("random:resnet19", store, "folder")
    with pytest.raises(DatasetError, match="no task is called 'chest'"):
        probe("random", store, "chest")


def test_images_without_labels_are_refused(store):
    rows = [row | {"labels": []} for row in store.index.to_pylist()]
    unlabelled = replace(store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA))
    with pytest.raises(DatasetError, match=r"images of folder have no binary label.*labels\.csv"):
        probe("random", unlabelled, "folder")


@pytest.mark.parametrize("classifier", ["linear", "knn"])
def test_out_of_fold(store, tmp_path, monkeypatch, classifier):
    """Every patient's images are scored once, by a classifier of the other patients' images."""
    task = replace(load_task("folder"), name="folds", train=("train", "test"), test=(), folds=4)
    monkeypatch.setattr(module, "baseline_specs", lambda architecture: [BaselineSpec("pixels", seeds=(0,))])
    options = {"size": 32, "bootstrap": 20, "progress": False, "classifier": classifier}
    report = probe("random", store, task, tmp_path / "out", **options)
    assert report.columns[1].metrics["square"].value > 0.8
    assert "The network saw 0 of these patients in pretraining" in report.markdown()

    predictions = Predictions.load(tmp_path / "out")
    np.testing.assert_array_equal(predictions.patients, store.patients)
    init = load_initialization("random", size=32, store=store, calibrate_on=np.arange(80))
    features = extract_features(init.network, store, np.arange(80), 32, init.mean, init.std)
    folds = patient_folds(store.patients, 4, "out_of_fold")
    metric = partial(tuning_metric, task, task.label_names(store))
    for fold in range(4):
        test = folds == fold
        parts = (features[~test], task.labels(store)[~test], store.patients[~test], features[test])
        expected = fit_and_score(classifier, *parts, metric).scores
        np.testing.assert_allclose(predictions.scores[test], expected, rtol=1e-3, atol=1e-4)

    facts = Result.read(tmp_path / "out").facts
    assert (facts["folds"], facts["train_images"], facts["test_images"], facts["test_patients"]) == (4, 80, 80, 40)
    assert facts["test_patients_seen_in_pretraining"] == 0
    assert len(facts.get("C", range(4))) == 4


def test_a_label_that_a_fold_cannot_learn_has_no_scores(store, tmp_path):
    """All positives of a label are one patient's: the fold of this patient is scored by a model that saw none."""
    rows = store.index.to_pylist()
    for n, row in enumerate(rows):
        row["labels"] = [*row["labels"], ("rare", float(n < 2))]
    rare = replace(store, index=pa.Table.from_pylist(rows, INDEX_SCHEMA))
    task = replace(load_task("folder"), name="folds", train=("train", "test"), test=(), folds=4)
    report = probe("random", rare, task, tmp_path / "out", size=32, baselines=False, bootstrap=5, progress=False)
    assert np.isnan(report.target.metrics["rare"].value)
    assert report.target.metrics.skipped_labels == "rare"
    assert np.isfinite(report.target.metrics["square"].value)
