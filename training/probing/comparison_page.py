"""The HTML pages of comparisons: of networks on several tasks, and on a few labelled images."""

from collections.abc import Iterable
from pathlib import Path

from ..evaluation.predictions import Predictions, few_cases_note
from ..evaluation.report_page import ROC_NOTE, roc_charts, table_of
from ..evaluation.tasks import Task
from ..pages.charts import Chart, Line
from ..pages.report import Block, Charts, Facts, Page, Section, Table, Text
from ..run_files.compared_curves import monitored
from ..run_files.curves_page import monitor_charts
from .compare import Cell, Comparison
from .few_shot import FewShot

MANY = 4
"""Charts of a task that are shown without being opened."""
SIDES = {False: "common side", True: "best side"}
WEIGHTS = ("architecture", "weights", "weights_sha256", "checkpoint", "recipe", "license", "trained_on", "mean", "std")
"""Facts of a probe about its network."""
SHARED = ("store_sha256", "store_size", "classifier", "bootstrap", "versions")
"""Facts of a probe that are usually the same for all tasks."""
OWN = ("train_images", "train_patients", "test_images", "test_patients", "sample")
"""Facts of a probe about its task's images. Probes of one sample can be paired; its fingerprint is cut to 16 digits."""


def comparison_page(comparison: Comparison) -> Page:
    """Make the page of a comparison: a table of all tasks, a section for each task, and the networks' provenance."""
    title = f"Frozen features of {len(comparison.networks)} networks, compared"
    sections = [
        Section("All tasks", [Text(_how(comparison)), *_overview(comparison)]),
        *(Section(task.name, _task_blocks(comparison, task)) for task in comparison.tasks),
        Section("Training curves", _training_curves(comparison.networks)),
        Section("Provenance", _provenance(comparison)),
    ]
    return Page(title, [], sections)


def _how(comparison: Comparison) -> list[str]:
    seeds = max((len(cell.results) for cell in comparison.cells.values()), default=1)
    random = f" A random network is a mean over {seeds} seeds." if seeds > 1 else ""
    return [
        "Linear probes on frozen features, with 95 % intervals over resamples of whole patients. At the common side, "
        "all networks see images of one size. At the best side, each network sees the size that was best on its tuning "
        f"patients, never chosen on the test part.{random} Differences are paired by patient and are to "
        f"{comparison.reference}. Seen in pretraining: the number of test patients whose images, without labels, were "
        "in the network's pretraining."
    ]


def _overview(comparison: Comparison) -> list[Table]:
    """A table for each choice of the side: networks as rows, tasks as columns."""
    header = ["network", *(f"{task.name}, {task.headline}" for task in comparison.tasks)]
    tables = []
    for best, side in SIDES.items():
        rows = [
            [network, *(comparison.cell(network, task, best).estimate() or "–" for task in comparison.tasks)]
            for network in comparison.networks
        ]
        measured = [row for row in rows if any(cell != "–" for cell in row[1:])]
        if measured:
            tables.append(table_of(f"AUROC at the {side}", header, measured))
    return tables


def _task_blocks(comparison: Comparison, task: Task) -> list[Block]:
    """One row for each network and side, the differences, and the ROC curves at the common side."""
    values: list[list[object]] = []
    differences: list[list[object]] = []
    for best, side in SIDES.items():
        for network in comparison.networks:
            cell = comparison.cell(network, task, best)
            if not cell.results:
                continue
            seen = "unknown" if cell.seen is None else str(cell.seen)
            about = [f"{side}, {cell.size} px", str(len(cell.results)), seen]
            values.append([network, cell.estimate(), *about])
            if difference := comparison.difference(network, task, best)[0]:
                differences.append([network, difference, f"{side}, {cell.size} px"])
    header = ["network", task.headline, "input side", "seeds", "seen in pretraining"]
    notes = [task.note, few_cases_note(comparison.cases.get(task.name, {})), *comparison.unpaired([task])]
    blocks: list[Block] = [Text([*filter(None, notes)])]
    blocks.append(table_of(f"AUROC on {task.name}", header, values))
    if differences:
        caption = f"Paired difference: each network minus {comparison.reference}"
        blocks.append(table_of(caption, ["network", task.headline, "input side"], differences))
    cells = {network: comparison.cell(network, task, False) for network in comparison.networks}
    return [*blocks, *_roc({network: cell for network, cell in cells.items() if cell.results})]


def _roc(cells: dict[str, Cell]) -> list[Block]:
    """ROC curves at the common side; of a random network, those of its first seed."""
    if not cells:
        return []
    runs = {network: Predictions.load(cell.folders[0]) for network, cell in cells.items()}
    metrics = {network: cell.results[0].metrics for network, cell in cells.items()}
    several = any(len(cell.results) > 1 for cell in cells.values())
    first = " Curves and AUROC of random networks are those of their first seed." if several else ""
    charts = roc_charts(runs, metrics)
    folded = f"ROC curves of {len(charts)} labels" if len(charts) > MANY else ""
    return [Charts(charts, f"ROC curves at the common side. {ROC_NOTE}{first}", folded)]


def _training_curves(networks: Iterable[str]) -> list[Block]:
    """The k-NN monitor of the networks that are run folders, over the hours of their training."""
    rows = [
        {"run": network, **row}
        for network in networks
        if (Path(network) / "run.json").is_file()
        for row in monitored(Path(network))
    ]
    return [Charts(monitor_charts(rows))] if rows else []


def _provenance(comparison: Comparison) -> list[Block]:
    """The weights of each network; facts that all tasks share; and the images and sample of each task."""
    probes = {key[:2]: cell.results[0] for key, cell in comparison.cells.items() if cell.results and not key[2]}
    weights = {network: result.facts for (network, _), result in probes.items()}
    samples = {task: result.facts | {"sample": result.metrics.sample[:16]} for (_, task), result in probes.items()}
    shared = [key for key in SHARED if len({str(facts.get(key)) for facts in samples.values()}) == 1]
    own = [key for key in (*SHARED, *OWN) if key not in shared and any(key in facts for facts in samples.values())]
    rows = [[task, *(str(facts.get(key, "–")) for key in own)] for task, facts in samples.items()]
    return [
        *(Facts(network, {key: facts[key] for key in WEIGHTS if key in facts}) for network, facts in weights.items()),
        Facts("Settings, versions and data of all tasks", {key: next(iter(samples.values()))[key] for key in shared}),
        Table("Data of each task", ["task", *own], rows),
    ]


def few_shot_page(found: FewShot) -> Page:
    """Make the page of a comparison on a few labelled images: curves, tables and provenance."""
    first, *others = found.metrics
    facts = {key: value for key, value in found.facts.items() if key != "networks"}
    weights = [Facts(name, about) for name, about in found.facts["networks"].items()]
    lines = []
    for name in found.metrics:
        estimates = [found.estimate(name, count) for count in found.counts]
        values, low, high = zip(*((e.value, e.low, e.high) for e in estimates), strict=True)
        lines.append(Line(name, found.counts, values, "", low, high))
    labels = ("labelled training images", f"AUROC, {found.task.headline}")
    chart = Chart(found.task.name, *labels, lines, x_ticks=found.counts, log=True, points=True, apart=True)
    header = ["network", *(f"{count} images" for count in found.counts)]
    values_of = [[name, *(found.estimate(name, count) for count in found.counts)] for name in found.metrics]
    tables = [table_of(f"AUROC, {found.task.headline}", header, values_of)]
    if others:
        rows = [[name, *(found.difference(name, count) for count in found.counts)] for name in others]
        tables.append(table_of(f"Paired difference: each network minus {first}", header, rows))
    return Page(
        f"Few labelled images of {found.task.name}",
        [],
        [
            Section("Curves", [Text([found.caption()]), Charts([chart])]),
            Section("Metrics", tables),
            Section("Provenance", [*weights, Facts("Data, settings and versions", facts)]),
        ],
    )
