"""The model card of a release: front matter that the hub reads, and the text beneath it.

Facts come from the release's record and provenance; words from `cards.toml` and `card.md`. The repository's own
MODEL_CARD.md is written by hand, but for its front matter: `python -m c2l_models.publishing.card MODEL_CARD.md`.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..architectures import find_architecture
from ..errors import WeightsCorrupted, WeightsNotFound
from ..releases.provenance import read_provenance
from ..releases.record import Weights
from ..releases.registry import get_weights, list_weights

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

WORDS = Path(__file__).with_name("cards.toml")
TEMPLATE = Path(__file__).with_name("card.md")

METRIC_TYPES = {"AUROC": "roc_auc"}
"""The hub's names of our metrics; of others the name is our own, in lower case."""


class Figure(NamedTuple):
    """One of a release's metrics: the data set's key, how and what was measured, and the 95 % interval."""

    dataset: str
    how: str
    metric: str
    what: str
    value: float
    low: float
    high: float


def metrics(weights: Weights) -> list[Figure]:
    """A release's metrics, whose names are "DATASET HOW, METRIC, WHAT". Raises `WeightsCorrupted` for others."""
    found = []
    for name, metric in weights.metrics.items():
        parts = re.fullmatch(r"(\w+) ([^,]+), ([^,]+), (.+)", name)
        if parts is None:
            raise WeightsCorrupted(f"{weights.name}: a metric is called {name!r}, wanted 'DATASET HOW, METRIC, WHAT'")
        dataset, how, kind, what = parts.groups()
        found.append(Figure(dataset, how, kind, what, **metric))
    return found


def card_data(weights: Weights) -> "ModelCardData":
    """The front matter, `model-index` with intervals included. Raises as `model_card`."""
    from huggingface_hub import EvalResult, ModelCardData

    words, found = _words(weights), metrics(weights)
    results = [
        EvalResult(
            task_type="image-classification",
            task_name=figure.how,
            dataset_type=figure.dataset,
            dataset_name=_dataset(words, figure.dataset)["name"],
            dataset_split="test",
            metric_type=METRIC_TYPES.get(figure.metric, figure.metric.lower()),
            metric_name=f"{figure.metric}, {figure.what}",
            metric_value=figure.value,
            metric_args={"confidence": 0.95, "low": figure.low, "high": figure.high},
        )
        for figure in found
    ]
    datasets = trained_on(weights)
    tags = [tag for dataset in datasets for tag in _dataset(words, dataset)["tags"]]
    return ModelCardData(
        license=weights.license.lower(),
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=[*words["tags"], *tags],
        datasets=datasets,
        training_data=list(weights.trained_on),
        metrics=sorted({result.metric_type for result in results}),
        model_name=weights.name,
        eval_results=results or None,
    )


def front_matter(releases: Iterable[Weights]) -> dict[str, Any]:
    """The front matter of one card of several releases: of one alone, that of its own card.

    Lists are joined, each thing once, `model-index` with an entry a release; where single values differ there is a
    list of them. Raises as `model_card`.
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
    """The card of a release as it stands in the hub's `repository`, `owner/name`.

    Raises `WeightsNotFound` where `cards.toml` has no words for the release or for one of its data
    sets, and `WeightsCorrupted` for a metric whose name is not understood.
    """
    from huggingface_hub import ModelCard

    words = _words(weights)
    found = [figure._replace(dataset=_dataset(words, figure.dataset)["name"]) for figure in metrics(weights)]
    architecture = find_architecture(weights.architecture)
    seen = read_provenance(weights, "patients")
    return ModelCard.from_template(
        card_data(weights),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        weights=weights,
        repository=repository,
        side=weights.input_size[-1],
        num_features=architecture.num_features,
        classifier=architecture.classifier,
        use=words["use"].strip(),
        citation=words["citation"].strip(),
        release={key: text.strip() for key, text in words["releases"][weights.name].items()},
        datasets=[_dataset(words, dataset) for dataset in trained_on(weights)],
        patients=", ".join(f"{len(ids):,} of {_dataset(words, dataset)['name']}" for dataset, ids in seen.items()),
        metrics=found,
    )


def trained_on(weights: Weights) -> list[str]:
    """The data sets' keys, each once: the first word of each line of `trained_on`."""
    return list(dict.fromkeys(line.partition(" ")[0] for line in weights.trained_on))


def _words(weights: Weights) -> dict[str, Any]:
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    if weights.name not in words["releases"]:
        raise WeightsNotFound(f'{WORDS}: no words for {weights.name}. Write a table [releases."{weights.name}"]')
    return words


def _dataset(words: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in words["datasets"]:
        raise WeightsNotFound(f"{WORDS}: no words for the data set {name}. Write a table [datasets.{name}]")
    return words["datasets"][name]


if __name__ == "__main__":  # python -m c2l_models.publishing.card MODEL_CARD.md: its front matter anew, after a release
    from huggingface_hub import metadata_save

    metadata_save(sys.argv[1], front_matter(map(get_weights, list_weights())))
