"""A store's image counts compared with the paper's, and patients shared between splits."""

import io

import pyarrow as pa
from rich.console import Console

from c2l_models.training.datasets.adapters import ADAPTERS
from c2l_models.training.datasets.constants import constants
from c2l_models.training.datasets.corpus import (
    CorpusRow,
    Overlap,
    compare_with_paper,
    paper_corpus,
    shared_patients,
    table,
)

FULL = {
    ("chestxray14", "train_val"): 86_524,
    ("chexpert", "train"): 223_414,
    ("mimic_cxr", "train"): 368_960,
    ("mimic_cxr", "val"): 2_991,
    ("mimic_cxr", "test"): 5_159,
    ("mura", "train"): 36_808,
    ("mura", "val"): 3_197,
}


def test_the_full_sets_are_the_papers_corpus():
    assert compare_with_paper(FULL) == [
        CorpusRow("chestxray14", "train_val", 86_524, 86_524, "86k"),
        CorpusRow("chexpert", "train", 223_414, 223_414, "220k"),
        CorpusRow("mimic_cxr", "train + val + test", 377_110, 377_110, "377,110"),
        CorpusRow("mura", "train + val", 40_005, 40_005, "36k + 3k"),
        CorpusRow("sum", "", 727_053, 727_053, "approximate 700k"),
    ]


def test_what_is_short_and_what_is_more_show():
    rows = compare_with_paper({("chestxray14", "test"): 5, ("chexpert", "train"): 10, ("knee_kl", "train"): 7})
    assert [(r.dataset, r.splits, r.in_store, r.in_paper) for r in rows] == [
        ("chestxray14", "train_val", 0, 86_524),
        ("chexpert", "train", 10, 223_414),
        ("mimic_cxr", "train + val + test", 0, 377_110),
        ("mura", "train + val", 0, 40_005),
        ("chestxray14", "test", 5, 0),
        ("knee_kl", "train", 7, 0),
        ("sum", "", 22, 727_053),
    ]


def test_a_store_without_a_set_of_the_paper_has_nothing_to_show():
    assert compare_with_paper({("knee_kl", "train"): 7, ("folder", "train"): 3}) == []


def test_the_table_says_each_count():
    console = Console(file=io.StringIO(), width=120)
    console.print(table(compare_with_paper({**FULL, ("knee_kl", "val"): 7})))
    text = console.file.getvalue()
    for expected in ("chestxray14", "377,110", "36k + 3k", "727,060", "727,053", "approximate 700k"):
        assert expected in text
    assert len([line for line in text.splitlines() if "knee_kl" in line and "–" in line]) == 1


def test_the_corpus_is_of_sets_and_splits_that_there_are():
    for part in paper_corpus()["sets"]:
        assert part["dataset"] in ADAPTERS
        assert set(part["splits"]) <= set(constants()["splits"])
        assert part["source"]


def index(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.table(dict(zip(("patient", "dataset", "split"), zip(*rows, strict=True), strict=True)))


def test_patients_of_two_kinds_of_splits_are_counted_by_pairs_of_parts():
    table = index(
        ("nih:1", "nih", "test"),
        ("nih:1", "nih", "test"),
        ("nih:1", "rsna", "train"),
        ("nih:1", "rsna", "train"),
        ("nih:1", "rsna", "train"),
        ("nih:2", "nih", "test"),
        ("nih:2", "rsna", "train"),
        ("nih:3", "nih", "train_val"),  # both are training splits: no leakage
        ("nih:3", "rsna", "train"),
        ("nih:4", "rsna", "train"),
        ("nih:4", "rsna", "test"),  # one data set, split by image
        ("knee:4", "knee", "val"),
        ("nih:5", "nih", "test"),  # both are test splits
        ("nih:5", "rsna", "test"),
        ("nih:6", "knee", "val"),
        ("nih:6", "nih", "test"),
        ("nih:6", "nih", "test"),
    )
    assert shared_patients(table) == [
        Overlap("knee/val", "nih/test", images=1, patients=1),
        Overlap("rsna/train", "nih/test", images=4, patients=2),
        Overlap("rsna/train", "rsna/test", images=1, patients=1),
    ]
    assert shared_patients(table.slice(0, 2)) == []


def test_the_training_films_of_rsna_that_are_of_test_patients_of_chestxray14(real_data):
    nih = ADAPTERS["chestxray14"](real_data / "chestxray14")
    rsna = ADAPTERS["rsna"](real_data / "rsna-pneumonia")
    tested = {record.patient for record in nih if record.split == "test"}
    shared = [record.patient for record in rsna if record.patient in tested]
    table = index(*((record.patient, record.dataset, record.split) for record in [*nih, *rsna]))
    assert shared_patients(table) == [Overlap("rsna/train", "chestxray14/test", len(shared), len(set(shared)))]
    assert len(shared) == 16
