"""Tables, initializations and scales of `c2l reproduce`, read from the TOML files in this folder."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from c2l_models.errors import C2LError

from ..recipe import Recipe
from ..recipe_files import from_dict, load_recipe, merged, recipe_keys
from .paper_tables import PaperTable, paper_tables

PAPER_QUEUE_LENGTH = Recipe("").queue_length
DRAW_SEEDS = 100
"""Distance between the seeds of two draws of the labelled patients. A table has fewer pretraining seeds."""
ROW_KEYS = {"description", "table", "method", "architecture", "sources"}
"""Recipe keys that belong to a row: a scale does not take them from the recipe that it names."""

Kind = Literal["probe", "knn", "finetune", "detect"]


@dataclass(frozen=True)
class InitializationPlan:
    """How a row's network gets its first weights: by pretraining with a recipe, or loaded.

    Attributes:
        name: name of the row.
        architecture: its name in timm.
        recipe: name of the recipe to pretrain with; "": `weights` are loaded.
        weights: what `load_initialization` loads: "random", "imagenet", a release or a file.
        folder: name of the pretraining's run folder.
        epoch_factor: multiplies the recipe's epochs and milestones.
        changes: keys that override the recipe, before a scale does: a search's trial.
        keep: keys that a scale does not override.
    """

    name: str
    architecture: str = ""
    recipe: str = ""
    weights: str = ""
    folder: str = ""
    epoch_factor: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """A downstream run that measures an initialization.

    Attributes:
        kind, task: kind and task of the downstream run.
        fraction: share of the task's training patients whose labels are used.
        held_out: share of the patients that pretraining left out, the recipe's `hold_out`; 0: all patients are used.
        held_out_for: "training": the downstream run trains on the held-out patients alone (sections 3.1 and 5: 16k of
            86k images). "testing": it trains on the other training patients and is tested on the held-out ones, so
            that a choice between recipes never sees a test patient.
        uncertain: how fine-tuning trains uncertain findings.
        draws: number of runs for each pretraining, each on other patients of the share. The table shows their mean.
            Equal draws have the same patients in every row.
        draw: number of this run among them, from 0.
    """

    kind: Kind
    task: str
    fraction: float = 1.0
    held_out: float = 0.0
    held_out_for: Literal["training", "testing"] = "training"
    uncertain: str = "ignore"
    draws: int = 1
    draw: int = 0

    @property
    def each_draw(self) -> "tuple[Measurement, ...]":
        """The measurement's runs, one for each draw."""
        return tuple(replace(self, draw=draw) for draw in range(self.draws))

    def seed(self, seed: int) -> int:
        """The seed of the run on a pretraining with this seed. It decides which patients are drawn."""
        return seed + DRAW_SEEDS * self.draw

    @property
    def folder(self) -> str:
        """Folder of its runs, relative to the scale's folder; existing results depend on it."""
        fraction = f"-{self.fraction:g}" if self.kind == "finetune" else ""
        uncertain = f"-{self.uncertain}" * (self.uncertain != "ignore")
        held_out = {"training": "-held-out", "testing": "-judged"}[self.held_out_for] * bool(self.held_out)
        draw = f"-draw{self.draw}" * bool(self.draw)
        return f"{self.kind}/{self.task}{fraction}{uncertain}{held_out}{draw}"


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, a metric of a measurement, and the name of the paper's column, or ""."""

    name: str
    metric: str
    measurement: Measurement
    printed: str = ""


@dataclass(frozen=True)
class TablePlan:
    """A table to fill.

    Attributes:
        name, title: of the table.
        rows: initializations, each with the name of the paper's row, or "" if the paper has no such row.
        columns: from left to right.
        references: names of the rows that the other rows of the same architecture are compared with.
        scale: name of the default scale.
        paper: the paper's table, or None.
    """

    name: str
    title: str
    rows: tuple[tuple[InitializationPlan, str], ...]
    columns: tuple[Column, ...]
    references: tuple[str, ...]
    scale: str = "paper"
    paper: PaperTable | None = None

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measurements of each row, without repetition, in the order of the columns."""
        return tuple(dict.fromkeys(column.measurement for column in self.columns))

    def printed(self, row: str, column: Column) -> float | None:
        """The value that the paper prints, in the paper's unit; None if it prints none."""
        return self.paper.metrics[row][column.printed] if self.paper and row and column.printed else None

    def only(self, names: Iterable[str]) -> "TablePlan":
        """The table with these rows only. Raises C2LError if a name is not a row's."""
        rows = {init.name: (init, printed) for init, printed in self.rows}
        return replace(self, rows=tuple(rows[known_name(name, rows, f"row of {self.name}")] for name in names))


@dataclass(frozen=True)
class Scale:
    """Sizes of images, pretraining and measurements; scales.toml describes each key.

    Attributes:
        name, description: of the scale.
        store_size: side of the stored images, pixels.
        sources: replaces a recipe's sources if it trains on other data sets; empty: no replacement.
        recipe: overrides each row's recipe.
        methods: by method, overrides `recipe`.
        finetune, detect, features: override the settings of these measurements; `features` of probe and k-NN.
        few_labels: by fraction, overrides `finetune`.
        smoke: whether the values of `--smoke` are applied.
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

    @property
    def folder(self) -> str:
        """Name of the scale's folder."""
        return self.name + "-smoke" * self.smoke

    def settings(self, measurement: Measurement) -> dict[str, Any]:
        """The settings of a measurement that differ from their defaults."""
        if measurement.kind == "detect":
            return dict(self.detect)
        if measurement.kind != "finetune":
            return dict(self.features)
        few = self.few_labels.get(f"{measurement.fraction:g}", {})
        return {"fraction": measurement.fraction, "uncertain": measurement.uncertain} | merged(self.finetune, few)


def table_names() -> list[str]:
    """Names of the tables that can be reproduced."""
    return list(_read("tables")["tables"])


def load_table(name: str) -> TablePlan:
    """Read a table from tables.toml. Raises C2LError for an unknown name."""
    tables, names = _read("tables")["tables"], _read("tables")["metric_names"]
    entry = tables[known_name(name, tables, "table")]
    base = entry.get("base", name)
    entry = tables[base] | entry
    rows = tuple((load_initialization_plan(init), printed) for init, printed in entry["rows"].items())
    if paper := paper_tables().get(base):
        measurement = Measurement(**entry["measurement"])
        shown = entry.get("columns", paper.columns)
        columns = tuple(Column(column, names.get(column, column), measurement, column) for column in shown)
    else:
        columns = tuple(
            Column(**column | {"measurement": Measurement(**column["measurement"])}) for column in entry["columns"]
        )
    title = paper.title if paper else entry["title"]
    return TablePlan(name, title, rows, columns, tuple(entry["references"]), entry.get("scale", "paper"), paper)


def load_initialization_plan(name: str) -> InitializationPlan:
    """Read a row's initialization: its entry in initializations.toml or trials.toml, or the recipe of this name."""
    entry = _read("initializations").get(name) or {"recipe": name}
    for recipe, trials in _read("trials").items():
        if name in trials:
            entry = {"recipe": recipe, "changes": trials[name]}
    if "recipe" in entry:
        entry = entry | {"architecture": load_recipe(entry["recipe"]).architecture}
    return InitializationPlan(name=name, **{"folder": name} | entry | {"keep": tuple(entry.get("keep", ()))})


def load_scale(name: str, smoke: bool = False) -> Scale:
    """Read a scale from scales.toml, with the values of `--smoke` if asked. Raises C2LError for an unknown name."""
    scales = _read("scales")["scales"]
    entry = scales[known_name(name, scales, "scale")]
    if isinstance(recipe := entry.get("recipe"), str):
        keys = recipe_keys(recipe)
        entry = entry | {"recipe": {key: value for key, value in keys.items() if key not in ROW_KEYS}}
    entry = merged(entry, _read("scales")["smoke"] if smoke else {})
    return Scale(name=name, smoke=smoke, **entry | {"sources": tuple(entry.get("sources", ()))})


def recipe_of(init: InitializationPlan, scale: Scale, seed: int) -> Recipe:
    """The recipe of a row's pretraining at a scale.

    A scaled queue keeps its ratio to the paper's, and is at least three batches long, the keys of one step.
    `epoch_factor` is applied last.
    """
    own = from_dict(merged(load_recipe(init.recipe).to_dict(), init.changes))
    values = merged(merged(own.to_dict(), scale.recipe), scale.methods.get(own.method, {})) | {"seed": seed}
    if scale.recipe:
        values |= {"name": init.name, "description": f"{init.recipe}, {scale.description}"}
    if "queue_length" in scale.recipe:
        scaled = scale.recipe["queue_length"] * own.queue_length // PAPER_QUEUE_LENGTH
        values["queue_length"] = max(scaled, 3 * values["batch_size"])
    if scale.sources and not datasets_of(own.sources) <= datasets_of(scale.sources):
        values["sources"] = list(scale.sources)
    values |= {key: getattr(own, key) for key in init.keep}
    for key in ("epochs", "steps"):
        values[key] *= init.epoch_factor
    optimizer = values["optimizer"]
    optimizer["lr_milestones"] = [epoch * init.epoch_factor for epoch in optimizer["lr_milestones"]]
    return from_dict(values)


def datasets_of(sources: Iterable[str]) -> frozenset[str]:
    """The data sets of a recipe's sources."""
    return frozenset(source.partition(":")[0] for source in sources)


def known_name(name: str, known: Iterable[str], kind: str) -> str:
    """Return the name if it is known. Raises C2LError that suggests similar names, or lists all."""
    known = list(known)
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from: {', '.join(known)}"
        raise C2LError(f"no {kind} is called {name!r}; {hint}")
    return name


@cache
def _read(file: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(f"{file}.toml").read_text(encoding="utf-8"))
