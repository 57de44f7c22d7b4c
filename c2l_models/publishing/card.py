"""Write the model card of a release: the front matter that the hub reads, and the text.

Facts come from the release's record and provenance, text from `cards.toml` and `card.md`. The repository's own
MODEL_CARD.md is written by hand; only its front matter is written here, by
`python -m c2l_models.publishing.card MODEL_CARD.md`.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..architectures import find_architecture
from ..errors import WeightsCorrupted, WeightsNotFound
from ..hub.weight_file import PROVENANCE_NAME
from ..releases.provenance import read_provenance
from ..releases.record import Weights
from ..releases.registry import get_weights, list_weights
from ..releases.training_data import data_set_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

WORDS = Path(__file__).with_name("cards.toml")
TEMPLATE = Path(__file__).with_name("card.md")

METRIC_TYPES = {"AUROC": "roc_auc"}
"""The hub's names of metrics; for other metrics, our own name in lower case is used."""


class CardMetric(NamedTuple):
    """A metric of a release: data set key, method, metric, target, and the value with its 95 % interval."""

    dataset: str
    method: str
    metric: str
    target: str
    value: float
    low: float
    high: float


def metrics(weights: Weights) -> list[CardMetric]:
    """Parse a release's metrics, whose names are "DATASET METHOD, METRIC, TARGET". Raises `WeightsCorrupted`."""
    found = []
    for name, metric in weights.metrics.items():
        parts = re.fullmatch(r"(\w+) ([^,]+), ([^,]+), (.+)", name)
        if parts is None:
            raise WeightsCorrupted(
                f"{weights.name}: expected a metric name 'DATASET METHOD, METRIC, TARGET', found {name!r}"
            )
        dataset, method, kind, target = parts.groups()
        found.append(CardMetric(dataset, method, kind, target, **metric))
    return found


def card_data(weights: Weights) -> "ModelCardData":
    """Return the front matter, with metrics and intervals in `model-index`. Raises as `model_card`."""
    from huggingface_hub import EvalResult, ModelCardData

    words, found = _words(weights), metrics(weights)
    results = [
        EvalResult(
            task_type="image-classification",
            task_name=metric.method,
            dataset_type=metric.dataset,
            dataset_name=_dataset(words, metric.dataset)["name"],
            dataset_split=_dataset(words, metric.dataset).get("split", "test"),
            metric_type=METRIC_TYPES.get(metric.metric, metric.metric.lower()),
            metric_name=f"{metric.metric}, {metric.target}",
            metric_value=metric.value,
            metric_args={"confidence": 0.95, "low": metric.low, "high": metric.high, "side": weights.input_size[-1]},
        )
        for metric in found
    ]
    datasets = trained_on(weights)
    tags = [tag for dataset in datasets for tag in _dataset(words, dataset)["tags"]]
    return ModelCardData(
        license=weights.license.lower(),
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=[*words["releases"][weights.name].get("tags", words["tags"]), *tags],
        datasets=datasets,
        training_data=list(weights.trained_on),
        metrics=sorted({result.metric_type for result in results}),
        model_name=weights.name if results else None,  # the name of the model-index
        eval_results=results or None,
    )


def front_matter(releases: Iterable[Weights]) -> dict[str, Any]:
    """Return the front matter of one card for several releases.

    Lists are joined without duplicates; `model-index` has one entry per release. Single values that differ become a
    list. Raises as `model_card`.
    """
    joined: dict[str, Any] = {}
    for data in (card_data(weights).to_dict() for weights in releases):
        for key, value in data.items():
            if (known := joined.setdefault(key, value)) != value:
                known = _listed(known)
                joined[key] = known + [one for one in _listed(value) if one not in known]
    return joined


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def model_card(weights: Weights, repository: str) -> "ModelCard":
    """Return the card of a release for the hub's `repository`, `owner/name`.

    Raises `WeightsNotFound` if `cards.toml` has no text for the release or for one of its data sets, and
    `WeightsCorrupted` if a metric's name cannot be parsed.
    """
    from huggingface_hub import ModelCard

    words = _words(weights)
    found = [metric._replace(dataset=_dataset(words, metric.dataset)["name"]) for metric in metrics(weights)]
    architecture = find_architecture(weights.architecture)
    release = {key: _stripped(text) for key, text in words["releases"][weights.name].items()}
    provenance = read_provenance(weights, "patients")
    seen, first = provenance["patients"], provenance.get("initialization", {})
    return ModelCard.from_template(
        card_data(weights),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        weights=weights,
        repository=repository,
        side=weights.input_size[-1],
        num_features=architecture.num_features,
        classifier=architecture.classifier,
        use=words["use"].strip(),
        citation=release.get("citation", words["citation"].strip()),
        release=release,
        initialization=f"`{first['name']}` ({first['license']})" if "license" in first else "",
        datasets=[_dataset(words, dataset) for dataset in trained_on(weights)],
        no_patients=not any(seen.values()),
        patients=", ".join(f"{len(ids):,} of {_dataset(words, dataset)['name']}" for dataset, ids in seen.items()),
        metrics=found,
        training=training_cost(provenance),
        provenance_file=PROVENANCE_NAME,
    )


def training_cost(provenance: dict[str, Any]) -> dict[str, str]:
    """Hardware, time and energy of the pretraining run, for readers; empty for weights that were trained elsewhere.

    A provenance without the measured `training_seconds` keeps the last lines of the run's log. Then the time is an
    estimate: all images at the last speed.
    """
    lines = [line for line in provenance.get("log", []) if line.get("images_per_second")]
    if not lines:
        return {}
    recipe, steps = provenance["recipe"], max(line["step"] for line in provenance["log"])
    processes, threads = provenance.get("processes", 1), provenance.get("threads")
    split = f", {processes} process{'es' * (processes > 1)}" + (f" of {threads} CPU thread(s)" if threads else "")
    done = f"{steps:,} steps of {recipe['batch_size']} images"
    if seconds := provenance.get("training_seconds"):
        time = f"{seconds / 3600:.2g} hours, measured: {done}; without probes and checkpoints"
    else:
        speed = lines[-1]["images_per_second"]
        hours = steps * recipe["batch_size"] / speed / 3600
        time = f"about {hours:.2g} hours: {done}, {speed:.0f} images per second at the end"
    initialization = provenance.get("initialization", {})
    alone = initialization.get("name", "random") == "random" and "averaged" not in initialization
    return {
        "hardware": f"{provenance['device']}{split}",
        "time": time
        + ("" if alone else "; without the training of the weights that it began with or was averaged with"),
        "energy": "not measured",
    }


def trained_on(weights: Weights) -> list[str]:
    """Return the keys of the training data sets, without duplicates; the data of earlier weights count too."""
    return list(dict.fromkeys(map(data_set_of, weights.trained_on)))


def _stripped(text: Any) -> Any:
    return text.strip() if isinstance(text, str) else text


def _words(weights: Weights) -> dict[str, Any]:
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    if weights.name not in words["releases"]:
        raise WeightsNotFound(f'{WORDS}: expected a table [releases."{weights.name}"], found none; write it')
    described = read_provenance(weights).get("data_sets", {})
    words["datasets"] = {name: _described(name, facts) for name, facts in described.items()} | words["datasets"]
    return words


def _described(name: str, facts: dict[str, str]) -> dict[str, Any]:
    """The texts of a data set that has no table in `cards.toml`, from its `dataset.toml`."""
    return {
        "name": facts.get("title", name),
        "tags": [],
        "attribution": "As its `dataset.toml` says.",
        "terms": facts.get("license", "not stated"),
        "source": f"<{facts['url']}>" if "url" in facts else "not stated",
        "citation": facts.get("citation", "not stated"),
    }


def _dataset(words: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in words["datasets"]:
        raise WeightsNotFound(f"{WORDS}: expected a table [datasets.{name}], found none; write it")
    return words["datasets"][name]


if __name__ == "__main__":  # update a file's front matter after a release
    from huggingface_hub import metadata_save

    metadata_save(sys.argv[1], front_matter(map(get_weights, list_weights())))
