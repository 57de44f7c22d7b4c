"""The page of `c2l curves`, against logs and recipes written by hand."""

import json

import pytest
from html_page import HtmlPage

from c2l_models import cli


def make_run(folder, recipe, lines):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"store": str(folder), "device": "a processor", "threads": 2}))
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def group(step, speed, **tasks):
    """Two lines of a log: a group of steps, and a probe after it."""
    probe = {"kind": "probe", "step": step, "epoch": 1, **tasks}
    return [{"kind": "train", "step": step, "images_per_second": speed}, probe]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    # 90 steps of 20 images at 0.5 images a second are one hour, 90 more at 1.0 half an hour.
    slow = [*group(90, 0.5, chest=0.7, knee=None), *group(180, 1.0, chest=0.65, knee=0.75)]
    fast = group(3600, 40.0, chest=0.5)  # one hour
    recipe = {"batch_size": 20, "seed": 0, "optimizer": {"lr": 0.06, "momentum": 0.9}, "sources": ["a", "b"]}
    other = recipe | {"batch_size": 40, "optimizer": {"lr": 0.03, "momentum": 0.9}, "extra": True}
    return [
        make_run(folder / "slow", recipe, slow),
        make_run(folder / "fast<1>", other, fast),
        make_run(folder / "silent", recipe, []),
    ]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    cli.main(["curves", *runs, "--out", str(out), "--html"])
    return HtmlPage(out / "curves.html")


def test_the_charts_show_the_probes_at_their_hours(page):
    page.check()
    near = [pytest.approx(pair, abs=1e-2) for pair in [(1.0, 0.7), (1.5, 0.65)]]
    assert page.line("chest", "slow") == near
    assert page.line("chest", "fast<1>") == [pytest.approx((1.0, 0.5), abs=1e-2)]
    assert page.line("knee", "slow") == [pytest.approx((1.5, 0.75), abs=1e-2)]  # the first value could not be computed
    assert [page.charts[task][0]["data-range"].split()[0] for task in ("chest", "knee")] == ["0", "0"]
    assert "Without a probe in the log: silent." in page.text


def test_the_tables_show_the_last_and_the_best_probe(page):
    def cells(task, run):
        return [cell["text"] for cell in page.row(f"k-NN AUROC on {task}", run)[1:]]

    assert cells("chest", "slow") == ["0.6500", "0.7000", "1.00", "1.50", "180"]
    assert cells("chest", "fast<1>") == ["0.5000", "0.5000", "1.00", "1.00", "3,600"]
    assert cells("knee", "slow") == ["0.7500", "0.7500", "1.50", "1.50", "180"]


def test_settings_are_shared_or_differ(page, runs):
    differing = {row[0]["text"]: [cell["text"] for cell in row[1:]] for row in page.tables["Settings that differ"]}
    assert differing == {
        "batch_size": ["20", "40", "20"],
        "optimizer: lr": ["0.06", "0.03", "0.06"],
        "extra": ["–", "yes", "–"],
    }
    shared = {row[0]["text"]: row[1]["text"] for row in page.tables["Settings of all runs"]}
    assert shared == {"seed": "0", "optimizer: momentum": "0.9", "sources": "a\nb"}
    assert page.row("Run fast<1>", "device")[1]["text"] == "a processor"
    assert not any(run in page.source for run in runs), "no path of this machine"


def test_one_run_has_settings_alone(runs, tmp_path):
    cli.main(["curves", runs[0], "--out", str(tmp_path), "--html"])
    page = HtmlPage(tmp_path / "curves.html")
    page.check()
    assert "Settings that differ" not in page.tables
    assert page.row("Settings", "batch_size")[1]["text"] == "20"


def test_no_page_without_the_option(runs, tmp_path):
    cli.main(["curves", *runs, "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "curves.png"]
