"""A comparison of frozen networks: its table, differences and plot, against the probes that it is made of."""

import csv
import hashlib
import inspect
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from html_page import HtmlPage
from PIL import Image

from c2l_models.cli import main
from c2l_models.errors import C2LError, DatasetError
from c2l_models.releases.registry import resolve
from c2l_models.training.commands import frozen_features
from c2l_models.training.evaluation.result import Result
from c2l_models.training.probing import compare as module
from c2l_models.training.probing.compare import compare
from c2l_models.training.probing.comparison_page import comparison_page
from c2l_models.training.probing.probe import probe
from c2l_models.training.store.image_store import ImageStore


@pytest.fixture(scope="module")
def comparison(tiny_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEEDS", (0, 1))
        found = compare(
            ["pixels", "untrained"],
            tiny_store,
            out,
            reference="resnet18.imagenet",
            size=32,
            sizes=(32, 48),
            progress=False,
        )
    return found, out


def rows_of(out):
    return list(csv.DictReader((out / "comparison.csv").open()))


def test_each_cell_is_the_probe_of_its_own(comparison, tiny_store):
    _, out = comparison
    rows = {(row["network"], row["side"]): row for row in rows_of(out)}
    assert set(rows) == {
        ("resnet18.imagenet", "common"),
        ("resnet18.imagenet", "best"),
        ("pixels", "common"),
        ("untrained", "common"),
    }
    for network in ("resnet18.imagenet", "pixels"):
        report = probe(network, tiny_store, "folder", size=32, baselines=False, progress=False)
        expected = report.target.metrics[report.headline]
        row = rows[network, "common"]
        assert (row["task"], row["metric"]) == ("folder", report.headline)
        assert [float(row[key]) for key in ("value", "low", "high")] == pytest.approx(
            list(vars(expected).values())[:3], abs=1e-4
        )
    by_seed = [
        probe("untrained", tiny_store, "folder", size=32, baselines=False, progress=False, seed=seed) for seed in (0, 1)
    ]
    mean = np.mean([report.target.metrics[report.headline].value for report in by_seed])
    assert float(rows["untrained", "common"]["value"]) == pytest.approx(mean, abs=1e-4)
    assert rows["untrained", "common"]["seeds"] == "2"
    assert rows["resnet18.imagenet", "best"]["size"] in ("32", "48")


def test_differences_are_to_the_reference(comparison):
    _, out = comparison
    rows = {(row["network"], row["side"]): row for row in rows_of(out)}
    reference = rows["resnet18.imagenet", "common"]
    assert reference["difference"] == ""
    for network in ("pixels", "untrained"):
        row = rows[network, "common"]
        assert float(row["difference"]) == pytest.approx(float(row["value"]) - float(reference["value"]), abs=2e-4)
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])
    text = (out / "comparison.md").read_text()
    assert "## At one common side" in text
    assert "## Each network at its best side" in text
    assert "mean of 2 seeds, 32 px; d " in text


def test_a_missing_difference_has_its_reason(comparison, tmp_path):
    found, _ = comparison
    (task,) = found.tasks
    key = ("pixels", task.name, False)
    (result,) = found.cells[key].results
    other = replace(result, metrics=replace(result.metrics, sample="of other patients"))
    changed = replace(found, cells=found.cells | {key: replace(found.cells[key], results=(other,))})
    reason = "pixels, folder, common side: no difference to resnet18.imagenet, because these metrics cannot be compared"
    assert reason in changed.markdown()
    assert reason not in found.markdown()
    comparison_page(changed).write(tmp_path / "page.html")
    assert reason in (tmp_path / "page.html").read_text()
    assert changed.csv().count("\n") == found.csv().count("\n")


def test_the_plot_has_a_panel_for_each_task(comparison):
    _, out = comparison
    assert Image.open(out / "comparison.png").size == (470, 310)


def test_a_finished_probe_is_not_repeated_and_other_images_are_refused(comparison, tiny_store, monkeypatch):
    _, out = comparison
    monkeypatch.setattr(module, "SEEDS", (0, 1))
    monkeypatch.setattr(module, "probe", lambda *_, **__: pytest.fail("repeated"))
    again = compare(["pixels"], tiny_store, out, size=32, sizes=(32, 48), progress=False)
    assert again.networks == ("resnet18.imagenet", "pixels")
    other = replace(tiny_store, sha256="0" * 64)
    with pytest.raises(C2LError, match=r"expected a probe of the store 0000.*move it away"):
        compare(["pixels"], other, out, size=32, sizes=(), progress=False)


def test_the_command(comparison, tiny_store_folder, monkeypatch, capsys):
    _, out = comparison
    monkeypatch.setattr(module, "SEEDS", (0, 1))
    command = ["compare", "pixels", "untrained", "--store", str(tiny_store_folder), "--out", str(out), "--size", "32"]
    main([*command, "--sizes", "--device", "cpu", "--html"])
    printed = capsys.readouterr().out
    assert "At one common side" in printed
    assert "Too few test images for a measure" in printed
    assert Result.is_done(out / "probes" / "folder" / "pixels-32px-seed0")
    assert "AUROC at the best side" not in HtmlPage(out / "comparison.html").tables


def test_the_html_page_has_the_metrics_of_the_csv_file(comparison, tiny_store, tmp_path):
    found, out = comparison
    found.write(out)  # the command may have written another comparison
    comparison_page(found).write(tmp_path / "page.html")
    page = HtmlPage(tmp_path / "page.html")
    page.check()
    metrics, differences = (
        {(row[0]["text"], row[column]["text"].partition(" ")[0]): next(page.measured(row)) for row in table}
        for table, column in (
            (page.tables["AUROC on folder"], 2),
            (page.tables["Paired difference: each network minus resnet18.imagenet"], 2),
        )
    )
    rows = rows_of(out)
    assert len(metrics) == len(rows)
    for row in rows:
        key, expected = (row["network"], row["side"]), [row[name] for name in ("value", "low", "high")]
        assert [float(value) for value in metrics[key]] == [float(value) for value in expected]
        overview = page.row(f"AUROC at the {row['side']} side", row["network"])
        assert next(page.measured(overview)) == metrics[key]
        if row["difference"]:
            numbers = [float(row[name]) for name in ("difference", "difference_low", "difference_high")]
            assert [float(value) for value in differences[key]] == numbers
    _, curves = page.charts["finding"]
    assert set(curves) == set(found.networks)
    for network in found.networks:
        points = page.line("finding", network)
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
        first = found.cell(network, found.tasks[0], False).results[0].metrics["finding"].value
        assert area == pytest.approx(first, abs=2e-4)
    assert page.row("resnet18.imagenet", "weights_sha256")[1]["text"] == resnet18_sha256()
    assert page.row("Settings, versions and data of all tasks", "store_sha256")[1]["text"] == tiny_store.sha256
    for patient in set(tiny_store.patients.tolist()):
        assert patient not in page.source


def resnet18_sha256():
    file = resolve("resnet18.imagenet").path()
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_store_without_a_labelled_test_part_is_refused(tiny_store, tmp_path):
    split = tiny_store.index.schema.get_field_index("split")
    train = tiny_store.index.set_column(split, "split", pa.array(["train"] * len(tiny_store)))
    store = ImageStore(tiny_store.path, tiny_store.images, train, tiny_store.sha256)
    with pytest.raises(DatasetError, match="expected a labelled data set with a training and a test part, found none"):
        compare(["pixels"], store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_commands_sides_are_those_of_the_comparison():
    given = inspect.signature(frozen_features.compare).parameters
    assert (given["size"].default, given["sizes"].default) == (module.SIZE, module.SIZES)
