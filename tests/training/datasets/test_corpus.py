"""The store's counts beside the paper's."""

import io

from rich.console import Console

from c2l_models.training.datasets import ADAPTERS
from c2l_models.training.datasets.corpus import Row, beside_paper, paper_corpus, table
from c2l_models.training.datasets.record import constants

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
    assert beside_paper(FULL) == [
        Row("chestxray14", "train_val", 86_524, 86_524, "86k"),
        Row("chexpert", "train", 223_414, 223_414, "220k"),
        Row("mimic_cxr", "train + val + test", 377_110, 377_110, "377,110"),
        Row("mura", "train + val", 40_005, 40_005, "36k + 3k"),
        Row("sum", "", 727_053, 727_053, "approximate 700k"),
    ]


def test_what_is_short_and_what_is_more_show():
    rows = beside_paper({("chestxray14", "test"): 5, ("chexpert", "train"): 10, ("knee_kl", "train"): 7})
    assert [(r.dataset, r.splits, r.here, r.paper) for r in rows] == [
        ("chestxray14", "train_val", 0, 86_524),
        ("chexpert", "train", 10, 223_414),
        ("mimic_cxr", "train + val + test", 0, 377_110),
        ("mura", "train + val", 0, 40_005),
        ("chestxray14", "test", 5, 0),
        ("knee_kl", "train", 7, 0),
        ("sum", "", 22, 727_053),
    ]


def test_a_store_without_a_set_of_the_paper_has_nothing_to_show():
    assert beside_paper({("knee_kl", "train"): 7, ("folder", "train"): 3}) == []


def test_the_table_says_each_count():
    console = Console(file=io.StringIO(), width=120)
    console.print(table(beside_paper({**FULL, ("knee_kl", "val"): 7})))
    text = console.file.getvalue()
    for said in ("chestxray14", "377,110", "36k + 3k", "727,060", "727,053", "approximate 700k"):
        assert said in text
    assert len([line for line in text.splitlines() if "knee_kl" in line and "–" in line]) == 1


def test_the_corpus_is_of_sets_and_splits_that_there_are():
    for part in paper_corpus()["sets"]:
        assert part["dataset"] in ADAPTERS
        assert set(part["splits"]) <= set(constants()["splits"])
        assert part["source"]
