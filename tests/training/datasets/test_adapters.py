"""A data set needs one adapter module and one table in `datasets.toml`."""

import importlib
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from c2l_models.training import datasets
from c2l_models.training.datasets import adapters
from c2l_models.training.datasets.constants import constants, label_names
from c2l_models.training.store import sources
from c2l_models.training.store.prepare import prepare

TOY = """
from c2l_models.training.datasets.record import Record

def records(root):
    return [Record(path, "toy", f"toy:{path.stem}", "PA", "train", {"odd": 1.0}) for path in root.glob("*.png")]
"""


def test_one_module_and_one_table_add_a_data_set(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    entry = {"folder_names": [], "public_patient_ids": True, "private_numbers_in_paths": False, "labels": ["odd"]}
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    monkeypatch.setitem(constants()["datasets"], "toy", entry)
    monkeypatch.setattr(adapters, "ADAPTERS", adapters.ADAPTERS)  # restores the attribute after the reload
    monkeypatch.setattr(sources, "ADAPTERS", importlib.reload(adapters).ADAPTERS)
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "a.png")
    store = prepare([("toy", tmp_path / "images")], tmp_path / "store", size=8, workers=1, progress=False).store
    (row,) = pq.read_table(store / "index.parquet").to_pylist()
    assert (row["dataset"], row["patient"], row["labels"]) == ("toy", "toy:a", [("odd", 1.0)])
    assert label_names("toy") == ("odd",)


def test_each_table_states_all_facts_and_each_adapter_has_a_table():
    folder = Path(datasets.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "\ndef records(root: Path" in path.read_text()}
    tables = constants()["datasets"]
    assert set(tables) == set(adapters.ADAPTERS) == modules
    facts = {"folder_names", "public_patient_ids", "private_numbers_in_paths", "labels"}
    assert all(set(table) == facts for table in tables.values())
