"""`c2l reproduce release NAME`: a release's own metrics once more, from raw folders, and whether they come back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from c2l_models.errors import C2LError
from c2l_models.files import write_atomically
from c2l_models.releases.provenance import damaged, read_provenance
from c2l_models.releases.registry import Weights, get_weights

from ..evaluation.intervals import Estimate
from ..evaluation.metrics import Metrics
from ..evaluation.tasks import load_task
from ..recipe import from_dict
from ..releasing.release import figure_name
from ..run_files.backbone import export_run
from .backends import Jobs, RealJobs
from .data import Stores, find_data
from .plan import InitializationPlan, Measurement, Scale, datasets_of
from .pretraining import ensure_pretrained

PROBE = " linear probe, "
"""What stands behind the task in the name of a release's metric."""

Verdict = Literal["came back", "did not come back", "not comparable", "not run"]


@dataclass(frozen=True)
class Check:
    """A figure of a release beside the same figure computed now.

    Attributes:
        name: of the metric, as the release has it.
        released: its value and interval there.
        now: today's; None where there is none.
        verdict: whether today's value is within the released interval.
        why: there is none.
    """

    name: str
    released: Estimate
    now: Estimate | None
    verdict: Verdict
    why: str = ""


def reproduce_release(
    name: str,
    data: Sequence[str],
    out: Path,
    train: bool = False,
    device: str = "auto",
    workers: int | None = None,
    jobs: Jobs | None = None,
) -> list[Check]:
    """Compute a release's metrics from raw folders, with its weights, or with weights that are trained anew.

    Args:
        name: of the release.
        data: as `reproduce_table` takes it.
        out: gets stores/, probe/ and tables/<release>.md; with `train` also pretrain/ and the new weights.
        train: pretrain by the recipe of the release's provenance, export, and measure that: days on a CPU.
        device, workers, jobs: as `reproduce_table` takes them.

    Raises:
        C2LError: no such release, or a provenance that cannot be read.
    """
    weights = get_weights(name)
    provenance = provenance_with(weights, "recipe", "store_size")
    stores = Stores(out / "stores", find_data(data), provenance["store_size"], workers)
    work, console = jobs or RealJobs(device), Console(stderr=True)
    start = InitializationPlan(weights.name, weights.architecture, weights=weights.name)
    if train:
        start = retrain(weights, provenance, stores, out, work)
    scale = Scale("release", "the release's own", stores.size)
    metrics: dict[str, Metrics | C2LError] = {}
    for task in dict.fromkeys(key.partition(PROBE)[0] for key in weights.metrics if PROBE in key):
        console.print(f"{start.name}: linear probe, {task}", markup=False, highlight=False)
        metrics[task] = _measure(start, task, scale, stores, out, work)
    checks = [check(key, metric, metrics) for key, metric in weights.metrics.items()]
    write_table(out, start.name, markdown(start.name, weights, checks, train))
    return checks


def provenance_with(weights: Weights, *keys: str) -> Mapping[str, Any]:
    """A release's provenance. Raises WeightsCorrupted where it has not all of these keys."""
    provenance: Mapping[str, Any] = read_provenance(weights)
    if missing := [key for key in keys if key not in provenance]:
        raise damaged(weights, f"a table with {' and '.join(missing)}")
    return provenance


def write_table(out: Path, name: str, text: str) -> None:
    """Write tables/<name>.md."""
    (out / "tables").mkdir(parents=True, exist_ok=True)
    write_atomically(out / "tables" / f"{name}.md", text.encode())


def retrain(
    weights: Weights, provenance: Mapping[str, Any], stores: Stores, out: Path, jobs: Jobs
) -> InitializationPlan:
    """Pretrain by the provenance's recipe and export: a start that is called after the release."""
    recipe = from_dict(provenance["recipe"])
    store = stores.get(datasets_of(recipe.sources))
    name = f"{weights.name}-again"
    run = ensure_pretrained(recipe, store, out / "pretrain" / name, jobs.pretrain)
    file = export_run(run.folder, out / f"{name}.safetensors", store, tag="again", size=weights.input_size[-1])
    return InitializationPlan(name, weights.architecture, weights=str(file))


def check(name: str, released: Mapping[str, float], metrics: Mapping[str, Metrics | C2LError]) -> Check:
    """A metric of a release beside the metrics of its task, or what kept them from being computed."""
    task = name.partition(PROBE)[0]
    then = Estimate(released["value"], released["low"], released["high"])
    measured = metrics.get(task)
    if isinstance(measured, C2LError):
        return Check(name, then, None, "not run", str(measured))
    called = {figure_name(task, figure): figure for figure in measured.names} if measured else {}
    if not measured or name not in called:
        return Check(name, then, None, "not comparable", f"today's metrics are {', '.join(called) or 'none of it'}")
    now = measured[called[name]]
    return Check(name, then, now, "came back" if then.low <= now.value <= then.high else "did not come back")


def markdown(name: str, weights: Weights, checks: Sequence[Check], train: bool) -> str:
    """The checks as a table."""
    with_what = "pretrained anew by the release's recipe" if train else f"the released weights, {weights.sha256[:12]}"
    lines = [
        f"| {one.name} | {one.released} | {one.now or '–'} | {one.verdict}{f': {one.why}' if one.why else ''} |"
        for one in checks
    ]
    return "\n".join(
        [
            f"# {name}: the release's metrics, computed again",
            "",
            f"With {with_what}. A figure has come back if today's value is within the released 95 % interval.",
            "",
            "| figure | released | today | |",
            "| --- | ---: | ---: | --- |",
            *lines,
            "",
        ]
    )


def all_back(checks: Sequence[Check]) -> bool:
    """Whether metrics came back, and none was away or could not be run; one that no longer exists is neither."""
    verdicts = {one.verdict for one in checks}
    return "came back" in verdicts and verdicts <= {"came back", "not comparable"}


def _measure(
    start: InitializationPlan, task: str, scale: Scale, stores: Stores, out: Path, jobs: Jobs
) -> Metrics | C2LError:
    """The metrics of a linear probe, or why there are none."""
    try:
        measured = Measurement("probe", task)
        stores.need({load_task(task).dataset})
        return jobs.measure(start, measured, 0, None, scale, stores, out / measured.folder / start.name).metrics
    except C2LError as error:
        return error
