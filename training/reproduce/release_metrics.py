"""`c2l reproduce release NAME`: compute a release's metrics again from raw folders, and compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from c2l_models.errors import C2LError, RunError
from c2l_models.files import write_atomically
from c2l_models.progress import report
from c2l_models.releases.provenance import read_provenance
from c2l_models.releases.record import Weights
from c2l_models.releases.registry import get_weights

from ..evaluation.intervals import Estimate
from ..evaluation.markdown import markdown_table
from ..evaluation.metrics import Metrics
from ..evaluation.tasks import load_task
from ..recipe_files import from_dict
from ..releasing.average import average_run
from ..releasing.release import metric_name
from ..run_files import checkpoint
from ..run_files.backbone import export_run
from ..run_files.run_folder import read_initialization
from ..run_files.run_lock import locked
from .backends import Backend, LocalBackend
from .data import Stores, find_data
from .plan import InitializationPlan, Measurement, Scale, datasets_of
from .pretraining import ensure_pretrained

CONVERSION = "conversion"
"""Key in the provenance of a release that `c2l convert` made."""

PROBE = " linear probe, "
"""Follows the task in the name of a release's metric."""

Verdict = Literal["reproduced", "not reproduced", "not comparable", "not run"]


@dataclass(frozen=True)
class MetricComparison:
    """A metric of a release: as released, and computed now.

    Attributes:
        name: of the metric in the release.
        released: its value and interval.
        now: today's; None if it was not computed.
        verdict: "reproduced" if today's value lies within the released interval.
        reason: why there is no value of today.
    """

    name: str
    released: Estimate
    now: Estimate | None
    verdict: Verdict
    reason: str = ""


def reproduce_release(
    name: str,
    data: Sequence[str],
    out: Path,
    train: bool = False,
    device: str = "auto",
    workers: int | None = None,
    backend: Backend | None = None,
    pretraining_only: Sequence[str] = (),
) -> list[MetricComparison]:
    """Compute a release's metrics from raw folders, with its own weights or with newly trained ones.

    Args:
        name: of the release.
        data: as in `reproduce_table`.
        out: gets stores/, probe/ and tables/<release>.md; with `train` also pretrain/ and the new weights.
        train: pretrain with the recipe in the release's provenance, export, and measure the new weights. It takes days
            on a CPU.
        device, workers, backend, pretraining_only: as in `reproduce_table`.

    Raises:
        C2LError: no such release, a damaged provenance, or `train` for a release that was not trained here.
    """
    weights = get_weights(name)
    if train:
        check_trained_here(weights)
    provenance = read_provenance(weights)
    if CONVERSION not in provenance:
        provenance = read_provenance(weights, "recipe", "store_size")
    side = provenance.get("store_size", weights.input_size[-1])
    stores = Stores(out / "stores", find_data(data), side, workers, pretraining_only=pretraining_only)
    backend = backend or LocalBackend(device)
    init = InitializationPlan(weights.name, weights.architecture, weights=weights.name)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if train:
            init = retrain(weights, provenance, stores, out, backend)
        scale = Scale("release", "the release's own", stores.size)
        metrics: dict[str, Metrics | C2LError] = {}
        for task in dict.fromkeys(key.partition(PROBE)[0] for key in weights.metrics if PROBE in key):
            report(f"{init.name}: linear probe, {task}")
            metrics[task] = _measure(init, task, scale, stores, out, backend)
        comparisons = [compare(key, metric, metrics) for key, metric in weights.metrics.items()]
        write_table(out, init.name, markdown(init.name, weights, comparisons, train))
    return comparisons


def check_trained_here(weights: Weights) -> None:
    """Raise C2LError for a release that `c2l convert` made: it has no recipe, no first steps and no run."""
    provenance = read_provenance(weights)
    if CONVERSION in provenance:
        raise C2LError(
            f"{weights.name} was converted, not trained here, so no training can be reproduced. Its origin: "
            f"{provenance.get('origin', 'not recorded')}. `c2l info {weights.name}` lists the conversion, "
            f"`c2l verify {weights.name}` checks the weights"
        )


def write_table(out: Path, name: str, text: str) -> None:
    """Write tables/<name>.md."""
    (out / "tables").mkdir(parents=True, exist_ok=True)
    write_atomically(out / "tables" / f"{name}.md", text.encode())


def retrain(
    weights: Weights, provenance: Mapping[str, Any], stores: Stores, out: Path, backend: Backend
) -> InitializationPlan:
    """Pretrain with the provenance's recipe, average as it says, and export: the weights "<release>-again".

    Raises RunError if an earlier average was made of another pretraining.
    """
    recipe = from_dict(provenance["recipe"])
    store = stores.get(datasets_of(recipe.sources))
    name = f"{weights.name}-again"
    folder = ensure_pretrained(recipe, store, out / "pretrain" / name, backend.pretrain).folder
    if parts := provenance.get("initialization", {}).get("averaged"):
        shares = [part["share"] for part in parts.values()]
        folder, run = out / "pretrain" / f"{name}-averaged", folder
        if folder.exists():
            check_averaged(folder, run)
        else:
            average_run(dict(zip([str(run), *list(parts)[1:]], shares, strict=True)), folder, store.path)
    file = export_run(folder, out / f"{name}.safetensors", store, tag="again", size=weights.input_size[-1])
    return InitializationPlan(name, weights.architecture, weights=str(file))


def check_averaged(folder: Path, run: Path) -> None:
    """Raise RunError unless the first part of an earlier average is the newest checkpoint of this run."""
    parts = [*read_initialization(folder).get("averaged", {}).values()]
    found = parts[0].get("checkpoint") if parts else None
    if found != (newest := checkpoint.newest(run)):
        raise RunError(
            f"{folder}: expected an average with the checkpoint {newest} of {run}, found one with {found}; move "
            f"{folder} away"
        )


def compare(name: str, released: Mapping[str, float], metrics: Mapping[str, Metrics | C2LError]) -> MetricComparison:
    """Compare a metric of a release with today's.

    Args:
        name: of the metric in the release.
        released: its value, low and high.
        metrics: today's by task, or the error that stopped their computation.
    """
    task = name.partition(PROBE)[0]
    then = Estimate(released["value"], released["low"], released["high"])
    measured = metrics.get(task)
    if isinstance(measured, C2LError):
        return MetricComparison(name, then, None, "not run", str(measured))
    names = {metric_name(task, metric): metric for metric in measured.names} if measured else {}
    if not measured or name not in names:
        found = f"today's metrics of the task are {', '.join(names)}" if names else "no metric of this task is computed"
        return MetricComparison(name, then, None, "not comparable", found)
    now = measured[names[name]]
    verdict: Verdict = "reproduced" if then.low <= now.value <= then.high else "not reproduced"
    return MetricComparison(name, then, now, verdict)


def markdown(name: str, weights: Weights, comparisons: Sequence[MetricComparison], train: bool) -> str:
    """The comparisons as a report."""
    measured = "newly trained by the release's recipe" if train else f"as released, sha256 {weights.sha256[:12]}"
    lines = [
        (one.name, one.released, one.now or "–", f"{one.verdict}: {one.reason}" if one.reason else one.verdict)
        for one in comparisons
    ]
    return "\n".join(
        [
            f"# {name}: the release's metrics, computed again",
            "",
            f"Weights: {measured}. A metric is reproduced if today's value lies within the released 95 % interval.",
            "",
            markdown_table(["metric", "released", "today", ""], lines, "lrrl"),
            "",
        ]
    )


def all_reproduced(comparisons: Sequence[MetricComparison]) -> bool:
    """Whether at least one metric is reproduced, and all others are reproduced or not comparable."""
    verdicts = {one.verdict for one in comparisons}
    return "reproduced" in verdicts and verdicts <= {"reproduced", "not comparable"}


def _measure(
    init: InitializationPlan, task: str, scale: Scale, stores: Stores, out: Path, backend: Backend
) -> Metrics | C2LError:
    """The metrics of a linear probe, or the error that stopped it."""
    try:
        measurement = Measurement("probe", task)
        stores.require({load_task(task).dataset})
        folder = out / measurement.folder / init.name
        return backend.measure(init, measurement, 0, None, scale, stores, folder).metrics
    except C2LError as error:
        return error
