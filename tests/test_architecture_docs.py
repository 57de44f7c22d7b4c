"""docs/architecture.md names every package and module, only functions that exist, and examples that run."""

import csv
import importlib.util
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import c2l_models
from c2l_models.architectures import ARCHITECTURES, Architecture
from c2l_models.radiographs.phantom import write_films

pytestmark = pytest.mark.training

HALVES = {"c2l_models": "c2l_models", "training": "c2l_models.training"}


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(text: str) -> list[str]:
    """The first name in backticks of each row of the tables."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def example(page: str, title: str, language: str = "python", number: int = 0) -> str:
    """A code block of a section. Its first line is a comment that names the file."""
    blocks = re.findall(rf"^```{language}\n(# [^\n]*\n.*?)^```", section(page, title), re.DOTALL | re.MULTILINE)
    return blocks[number]


def attribute(path: str) -> object:
    """The object that a dotted path below `c2l_models.training` or `c2l_models` names."""
    parts = path.split(".")
    package = "c2l_models" if parts[0] == "c2l_models" else "c2l_models.training"
    parts = parts[1:] if parts[0] == "c2l_models" else parts
    for count in range(len(parts), -1, -1):
        try:
            found: object = importlib.import_module(".".join([package, *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


def test_the_page_names_every_package_and_module(repository: Path, page: str) -> None:
    named = first_column(section(page, "Packages"))
    packages = {
        f"{file.parent.relative_to(repository).as_posix()}/"
        for half in HALVES
        for file in (repository / half).rglob("__init__.py")
        if "training" not in file.relative_to(repository / half).parts and file.parent != repository / half
    }
    modules = {
        file.relative_to(repository).as_posix()
        for half in HALVES
        for file in (repository / half).glob("*.py")
        if file.name != "__init__.py"
    }
    assert len(named) == len(set(named))
    assert {name for name in named if name.endswith("/")} == packages
    assert {name for name in named if name.endswith(".py")} == modules


@pytest.mark.parametrize("title", ["Algorithm 1 in the code", "From files to weights"])
def test_functions_that_the_tables_name_exist(page: str, title: str) -> None:
    rows = [line for line in section(page, title).splitlines() if line.startswith("|")][2:]
    cells = [cell for row in rows for cell in row.strip("|").split("|")]
    paths = [path for cell in cells for path in re.findall(r"`([a-z0-9_]+(?:\.\w+)+)`", cell)]
    assert len(paths) >= 7, "the pattern finds the functions"
    for path in paths:
        assert attribute(path) is not None, path


def test_places_of_decisions_exist(repository: Path, page: str) -> None:
    rows = [line for line in section(page, "One place per decision").splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 8
    for row in rows:
        places = re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?: and )?)+))?", row)
        assert places, row
        for file, names in places:
            assert (repository / file).is_file(), file
            half, _, rest = file.partition("/")
            module = rest.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in re.findall(r"\w+", names.replace(" and ", " ")):
                assert hasattr(importlib.import_module(f"{HALVES[half]}.{module}"), name), f"{file}: {name}"


def test_the_examples_data_set_is_prepared(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from c2l_models.training import datasets
    from c2l_models.training.datasets import adapters
    from c2l_models.training.datasets.constants import constants
    from c2l_models.training.store import sources
    from c2l_models.training.store.prepare import prepare

    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "my_hospital.py").write_text(example(page, "Add a data set"))
    entry = tomllib.loads(example(page, "Add a data set", "toml"))["datasets"]["my_hospital"]
    assert set(entry) == set(constants()["datasets"]["mura"])
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "modules")])
    monkeypatch.setitem(constants()["datasets"], "my_hospital", entry)
    monkeypatch.setattr(adapters, "ADAPTERS", adapters.ADAPTERS)  # restores the attribute after the reload
    monkeypatch.setattr(sources, "ADAPTERS", importlib.reload(adapters).ADAPTERS)

    films = tmp_path / "films"
    films.mkdir()
    Image.new("L", (8, 8)).save(films / "a.png")
    with (films / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "patient", "split", "fracture"], ["a.png", 7, "train", 1]])
    store = prepare([("my_hospital", films)], tmp_path / "store", size=8, workers=1, progress=False).store
    (row,) = pq.read_table(store / "index.parquet").to_pylist()
    assert (row["dataset"], row["split"], row["labels"]) == ("my_hospital", "train", [("fracture", 1.0)])
    assert re.fullmatch(r"my_hospital:[0-9a-f]{16}", row["patient"])


def test_the_examples_method_is_pretrained(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from c2l_models.training import methods
    from c2l_models.training.pretrain import pretrain
    from c2l_models.training.recipe_files import load_recipe
    from c2l_models.training.run_files import log
    from c2l_models.training.run_files.backbone import load_run_backbone
    from c2l_models.training.store.image_store import ImageStore
    from c2l_models.training.store.prepare import prepare

    module = ModuleType("c2l_models.training.objectives.in_batch")
    exec(example(page, "Add a method"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    line = eval(f"{{{example(page, 'Add a method', number=1)}}}", {"MethodEntry": methods.MethodEntry})
    monkeypatch.setitem(methods.METHODS, "in_batch", line["in_batch"])

    write_films(tmp_path / "films", 40)
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    prepare([("folder", tmp_path / "films")], tmp_path / "store", size=32, workers=1, progress=False)
    small = {"size": 32, "batch_size": 16, "feature_dim": 16, "epochs": 2, "log_every": 1, "probe_every": 0}
    (tmp_path / "in-batch.toml").write_text(example(page, "Add a method", "toml"))
    recipe = replace(load_recipe(tmp_path / "in-batch.toml"), **small)
    assert recipe.method == "in_batch"
    store = ImageStore.open(tmp_path / "store")
    run = pretrain(recipe, store, tmp_path / "run", "cpu", progress=False)
    lines = log.read(run)
    assert len(lines) >= 2
    assert all(0 < line["loss"] < 100 and 0 <= line["top1"] <= 1 for line in lines)
    assert (run / "curves.png").is_file()
    assert (run / "first_batch.png").is_file()
    network, _ = load_run_backbone(run, store)
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 512)


def test_the_examples_architecture_is_built(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from c2l_models.training.recipe import Recipe

    entry = eval(f"{{{example(page, 'Add an architecture')}}}", {"Architecture": Architecture})
    assert list(entry) == ["resnet34"]
    monkeypatch.setitem(ARCHITECTURES, "resnet34", entry["resnet34"])
    assert "resnet34" in c2l_models.list_models()
    model = c2l_models.create_model("resnet34", in_chans=1).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 64, 64)).shape == (1, entry["resnet34"].num_features)
    assert Recipe("example", architecture="resnet34").architecture == "resnet34"


def test_modules_that_the_changelog_names_exist(repository: Path) -> None:
    table = (
        (repository / "CHANGELOG.md").read_text(encoding="utf-8").partition("| before | now |")[2].partition("\n\n")[0]
    )
    rows = [re.findall(r"`([\w.]+)`", row) for row in table.splitlines()[2:]]
    assert len(rows) >= 20
    for before, *names, now in rows:
        for module in [f"{now}.{name}" for name in names] or [now]:
            module = module.replace("training", "c2l_models.training", 1) if module.startswith("training") else module
            assert importlib.util.find_spec(module), f"{before} -> {module}"
