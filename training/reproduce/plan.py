"""What `c2l reproduce` is to run: tables of starts and measurements, at a scale; `plans.toml`, read."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from c2l_models.errors import C2LError

from ..recipe import RECIPES, Recipe, from_dict, load_recipe
from .paper_tables import PaperTable, paper_tables

PLANS = Path(__file__).with_name("plans.toml")
PAPERS_QUEUE = Recipe("").queue_length
OF_A_ROW = {"description", "table", "method", "architecture", "sources"}
"""Keys of a recipe that a scale does not take from the one that it names."""

Kind = Literal["probe", "knn", "finetune", "detect"]


@dataclass(frozen=True)
class InitializationPlan:
    """What a row starts from: a pretraining by a recipe, or weights that are there, as `load_initialization` names them.

    `changes` are laid over the recipe before the scale is: what a search tries.
    """

    name: str
    architecture: str = ""
    recipe: str = ""
    weights: str = ""
    folder: str = ""
    times: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Measurement:
    """What is measured of a start.

    Attributes:
        kind, task: of the downstream run.
        fraction: of the task's training patients that are learnt from.
        held_out: share of them whom a recipe with this `hold_out` does not pretrain on; 0: nobody.
        held_out_for: "learning": a downstream run learns from those alone (sections 3.1 and 5: 16k of 86k images);
            "judging": it learns from the others and is asked about those, so that a choice by its figure has not seen
            the test patients.
        uncertain: what a fine-tuning trains uncertain findings as.
    """

    kind: Kind
    task: str
    fraction: float = 1.0
    held_out: float = 0.0
    held_out_for: Literal["learning", "judging"] = "learning"
    uncertain: str = "ignore"

    @property
    def folder(self) -> str:
        """Its runs' folder below OUT."""
        part = f"-{self.fraction:g}" if self.kind == "finetune" else ""
        unsure = f"-{self.uncertain}" * (self.uncertain != "ignore")
        held_out = {"learning": "-held-out", "judging": "-judged"}[self.held_out_for] * bool(self.held_out)
        return f"{self.kind}/{self.task}{part}{unsure}{held_out}"


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, which figure of which measurement it shows, and the paper's column, or ""."""

    name: str
    figure: str
    measured: Measurement
    printed: str = ""


@dataclass(frozen=True)
class TablePlan:
    """A table to fill.

    Attributes:
        rows: starts, each with the name of the paper's row, or "" for one that the paper has not.
        against: names of the rows that the others of their architecture are compared with.
        scale: the one that it is for, unless another is asked for.
        paper: what the paper prints, or None.
    """

    name: str
    title: str
    rows: tuple[tuple[InitializationPlan, str], ...]
    columns: tuple[Column, ...]
    against: tuple[str, ...]
    scale: str = "paper"
    paper: PaperTable | None = None

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What is measured of each row, each once, in the columns' order."""
        return tuple(dict.fromkeys(column.measured for column in self.columns))

    def printed(self, row: str, column: Column) -> float | None:
        """The paper's figure, in its unit; None where it has none."""
        return self.paper.metrics[row][column.printed] if self.paper and row and column.printed else None

    def only(self, names: Iterable[str]) -> "TablePlan":
        """The table with these rows alone. Raises C2LError for a name that is no row's."""
        known = {start.name: (start, row) for start, row in self.rows}
        return replace(self, rows=tuple(known[pick(name, known, f"row of {self.name}")] for name in names))


@dataclass(frozen=True)
class Scale:
    """How large all of it is.

    Attributes:
        store_size: side of the stored images, pixels.
        sources: what stands in for the sources of a recipe that trains on other data sets too; none: nothing does.
        recipe: laid over each recipe: keys of its own, or those of the recipe that is named.
        methods: by method, laid over what `recipe` gives.
        finetune, detect, features: laid over the settings of these measurements; `features` are probe's and k-NN's.
        few_labels: by fraction, laid over `finetune`.
        smoke: whether `--smoke` is laid on top.
    """

    name: str
    description: str
    store_size: int
    sources: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    finetune: Mapping[str, Any] = field(default_factory=dict)
    detect: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    few_labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    smoke: bool = False

    def settings(self, measured: Measurement) -> dict[str, Any]:
        """What a measurement's settings have otherwise than their defaults."""
        if measured.kind == "detect":
            return dict(self.detect)
        if measured.kind != "finetune":
            return dict(self.features)
        few = self.few_labels.get(f"{measured.fraction:g}", {})
        return {"fraction": measured.fraction, "uncertain": measured.uncertain} | merged(self.finetune, few)


def table_names() -> list[str]:
    """The tables that can be reproduced."""
    return list(_plans()["tables"])


def load_table(name: str) -> TablePlan:
    """A table by its name. Raises C2LError for an unknown one."""
    plan = _plans()["tables"][pick(name, table_names(), "table")]
    if like := plan.get("like"):
        plan = _plans()["tables"][like] | plan
    rows = tuple((load_initialization_plan(start), row) for start, row in plan["rows"].items())
    if paper := paper_tables().get(plan.get("like", name)):
        names, measured = _plans()["printed"], Measurement(**plan["measured"])
        shown = plan.get("columns", paper.columns)
        columns = tuple(Column(column, names.get(column, column), measured, column) for column in shown)
    else:
        columns = tuple(
            Column(**column | {"measured": Measurement(**column["measured"])}) for column in plan["columns"]
        )
    title = paper.title if paper else plan["title"]
    return TablePlan(name, title, rows, columns, tuple(plan["against"]), plan.get("scale", "paper"), paper)


def load_initialization_plan(name: str) -> InitializationPlan:
    """What a row of this name starts from: its entry in `plans.toml`, or the recipe that is called so."""
    entry = _plans()["starts"].get(name, {"recipe": name})
    if "recipe" in entry:
        entry = entry | {"architecture": load_recipe(entry["recipe"]).architecture}
    return InitializationPlan(name=name, **{"folder": name} | entry)


def load_scale(name: str, smoke: bool = False) -> Scale:
    """A scale by its name, with what `--smoke` lays on top if asked. Raises C2LError for an unknown one."""
    scales = _plans()["scales"]
    table = scales[pick(name, scales, "scale")]
    if isinstance(named := table.get("recipe"), str):
        keys = tomllib.loads((RECIPES / f"{named}.toml").read_text())
        table = table | {"recipe": {key: value for key, value in keys.items() if key not in OF_A_ROW}}
    table = merged(table, _plans()["smoke"] if smoke else {})
    return Scale(name=name, smoke=smoke, **table | {"sources": tuple(table.get("sources", ()))})


def recipe_of(start: InitializationPlan, scale: Scale, seed: int) -> Recipe:
    """The recipe of a row's pretraining at a scale.

    A queue keeps its ratio to the paper's and is never shorter than three batches, a step's keys; `times` multiplies
    epochs and milestones last of all.
    """
    own = from_dict(merged(load_recipe(start.recipe).to_dict(), start.changes))
    values = merged(merged(own.to_dict(), scale.recipe), scale.methods.get(own.method, {})) | {"seed": seed}
    if scale.recipe:
        values |= {"name": start.name, "description": f"{start.recipe}, {scale.description}"}
    if "queue_length" in scale.recipe:
        scaled = scale.recipe["queue_length"] * own.queue_length // PAPERS_QUEUE
        values["queue_length"] = max(scaled, 3 * values["batch_size"])
    if scale.sources and not datasets_of(own.sources) <= datasets_of(scale.sources):
        values["sources"] = list(scale.sources)
    values["epochs"] *= start.times
    optimizer = values["optimizer"]
    optimizer["lr_milestones"] = [epoch * start.times for epoch in optimizer["lr_milestones"]]
    return from_dict(values)


def datasets_of(sources: Iterable[str]) -> frozenset[str]:
    """The data sets of a recipe's sources."""
    return frozenset(source.partition(":")[0] for source in sources)


def usual_folders() -> Mapping[str, list[str]]:
    """By data set, what its folder may be called, in small letters."""
    folders: dict[str, list[str]] = _plans()["folders"]
    return folders


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `values`, tables key by key; neither is changed."""
    result = {key: merged(value, {}) if isinstance(value, Mapping) else value for key, value in values.items()}
    for key, value in over.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, Mapping) else value
    return result


def pick(name: str, known: Iterable[str], what: str) -> str:
    """The name, if it is known. Raises C2LError that names the nearest ones, or all."""
    known = list(known)
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise C2LError(f"no {what} is called {name!r}; {hint}")
    return name


@cache
def _plans() -> dict[str, Any]:
    with PLANS.open("rb") as file:
        return tomllib.load(file)
