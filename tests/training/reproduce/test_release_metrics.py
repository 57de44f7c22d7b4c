"""A release's metrics once more: back within their interval, away, no longer there, or not to be had here."""

import numpy as np
import pytest
from reproduce_fakes import FakeJobs

from c2l_models.errors import C2LError
from c2l_models.releases.registry import get_weights
from c2l_models.training.evaluation.metrics import Metrics
from c2l_models.training.evaluation.result import Result
from c2l_models.training.reproduce.data import Stores
from c2l_models.training.reproduce.release_metrics import all_back, check, read_provenance, reproduce_release

NAME = "resnet18.c2l_open15k"


class Probes(FakeJobs):
    """Gives a task the metrics that a test says, by their names."""

    def __init__(self, **metrics):
        super().__init__()
        self.metrics, self.starts = metrics, []

    def measure(self, start, measured, seed, pretrained, scale, stores, out):
        self.starts.append((start.weights, stores.size, measured.kind))
        known = self.metrics[measured.task]
        if isinstance(known, Exception):
            raise known
        values = np.array(list(known.values()))
        metrics = Metrics(tuple(known), values, np.tile(values, (5, 1)), "sample")
        return Result("probe", start.name, start.architecture, measured.task, seed, metrics, {})


@pytest.fixture(autouse=True)
def all_there(monkeypatch):
    monkeypatch.setattr(Stores, "need", lambda self, datasets: None)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "sets/knee-kl").mkdir(parents=True)
    return [str(tmp_path / "sets")]


GOOD_CHEST = {"mean": 0.608, "mean without Hernia": 0.6064}
GOOD_KNEE = {"kl_grade ≥ 1": 0.6, "kl_grade ≥ 2": 0.7652, "quadratic weighted kappa": 0.52}


def verdicts(checks):
    return {one.name.split(", ")[-1]: one.verdict for one in checks}


def test_figures_within_their_intervals_came_back(data, tmp_path):
    jobs = Probes(chestxray14=GOOD_CHEST, knee_kl=GOOD_KNEE)
    checks = reproduce_release(NAME, data, tmp_path / "out", jobs=jobs)
    assert set(verdicts(checks).values()) == {"came back"}
    assert len(checks) == len(get_weights(NAME).metrics) == 4
    assert all_back(checks)
    assert set(jobs.starts) == {(NAME, 128, "probe")}
    text = (tmp_path / f"out/tables/{NAME}.md").read_text()
    assert "| 0.607 (0.569–0.651) | 0.608 (0.608–0.608) | came back |" in text


@pytest.mark.parametrize(("value", "verdict"), [(0.5691, "did not come back"), (0.5692, "came back")])
def test_the_interval_is_the_releases_own(data, tmp_path, value, verdict):
    jobs = Probes(chestxray14=GOOD_CHEST | {"mean": value}, knee_kl=GOOD_KNEE)
    checks = reproduce_release(NAME, data, tmp_path / "out", jobs=jobs)
    assert verdicts(checks)["mean"] == verdict
    assert all_back(checks) == (verdict == "came back")


def test_a_figure_that_no_longer_exists_is_not_comparable(data, tmp_path):
    jobs = Probes(chestxray14=GOOD_CHEST, knee_kl={"grade 2 or above": 0.77})
    checks = reproduce_release(NAME, data, tmp_path / "out", jobs=jobs)
    assert verdicts(checks)["kl_grade ≥ 2"] == "not comparable"
    assert "grade 2 or above" in checks[-1].why
    assert all_back(checks)


def test_missing_data_is_no_success(data, tmp_path):
    jobs = Probes(chestxray14=C2LError("no chestxray14 among the data given"), knee_kl=GOOD_KNEE)
    checks = reproduce_release(NAME, data, tmp_path / "out", jobs=jobs)
    assert verdicts(checks)["mean"] == "not run"
    assert "no chestxray14" in checks[0].why
    assert not all_back(checks)
    assert not all_back([])


def test_a_figure_of_an_unknown_measurement_is_not_comparable():
    one = check("chestxray14 fine-tuned, AUROC", {"value": 0.5, "low": 0.4, "high": 0.6}, {})
    assert one.verdict == "not comparable"


def test_unknown_releases_are_told(data, tmp_path):
    with pytest.raises(C2LError, match="nothing"):
        reproduce_release("resnet18.nothing", data, tmp_path, jobs=Probes())
    assert read_provenance(get_weights(NAME))["recipe"]["name"] == "open15k-resnet18"
