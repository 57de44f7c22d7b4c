"""look.md: explains the pictures, from the content of look.json."""

import json
from collections.abc import Mapping
from typing import Any

from ..evaluation.intervals import Difference, Estimate
from ..evaluation.markdown import markdown_table
from .pca_map import ALL_DATA_SETS
from .pointing_game import OVERALL


def markdown(facts: Mapping[str, Any]) -> str:
    """The report: one section per picture, then data, settings and versions."""
    parts = [f"# Features of {facts['target']}", *_neighbours(facts), *_map(facts)]
    if "cams" in facts:
        parts += _cams(facts["cams"])
    others = {key: value for key, value in facts.items() if key not in ("neighbours", "map", "cams")}
    return "\n\n".join([*parts, "## Data, settings and versions", _list(others)]) + "\n"


def _neighbours(facts: Mapping[str, Any]) -> list[str]:
    rows = [
        (query["film"], "; ".join(f"{one['film']} ({one['cosine']:.3f})" for one in query["nearest"]))
        for query in facts["neighbours"]
    ]
    text = (
        "Test films drawn at random, and the training films whose features are most similar (highest cosine). The "
        "test films of a data set are from different groups: the first has no finding (or the lowest grade) if the "
        "data set has such films; the others have findings or grades drawn at random. Training films of the test "
        "film's patient are left out. A caption is in colour if it equals the test film's caption."
    )
    table = markdown_table(("test film", "nearest training films, cosine"), rows, align="ll")
    return ["## Nearest neighbours: neighbours.png", text, table]


def _map(facts: Mapping[str, Any]) -> list[str]:
    text = (
        "Features of the test films on the first two principal components of the training films' features. Each data "
        "set has its own components, and all its panels show the same points. Classes that overlap on two components "
        "may still be separable on others: a linear probe measures this."
    )
    shares = [
        f"- {'all films' if name == ALL_DATA_SETS else name}: {100 * first:.1f} % and {100 * second:.1f} % of the "
        "variance"
        for name, (first, second) in facts["map"].items()
    ]
    return ["## Map: map.png", text, "\n".join(shares)]


def _cams(cams: Mapping[str, Any]) -> list[str]:
    height, width = cams["map"]
    rates = cams["pointing_game"]
    overall = rates[OVERALL]
    text = (
        f"Class-activation maps of {cams['start']}, fine-tuned on ChestX-ray14 (epoch {cams['epoch']}, mean AUROC "
        f"{_estimate(cams['mean_auroc'])}), at {cams['size']} pixels. A map has {height} × {width} cells. The "
        "mean of the cells, plus a constant, is the logit of the finding (Zhou et al., CVPR 2016). The picture "
        "interpolates between the cells, so it has no finer detail than the cells. It shows "
        f"{cams['drawn']} findings on films, drawn at random and evenly over the kinds of finding."
    )
    game = (
        f"Pointing game, over all {overall['films']} findings with a box on the test films, of {overall['patients']} "
        "patients. The network was not fine-tuned on these patients, and its epoch was not chosen on them. Map: share "
        "of maps whose largest cell has its centre inside the box. Chance: the same share for a random point of the "
        "film, which is the share of the film's area inside the box. Centre: the same share for the centre of the "
        f"film. 95 % intervals over {cams['bootstrap']} resamples of whole patients; differences are paired. If all or "
        "none of a finding's films are hits, all resamples are equal, and the interval has no meaning."
    )
    negative = (
        f"In {cams['maps_without_positive_cell']} of the {overall['films']} maps, no cell is above 0: every cell is "
        "evidence against the finding, and the largest cell is only the weakest evidence."
    )
    header = ["finding", "films", "patients", "map", "chance", "centre", "map minus chance", "map minus centre"]
    rows = [
        [
            name.replace("_", " "),
            found["films"],
            found["patients"],
            *(_estimate(found[key]) for key in ("map", "chance", "centre")),
            *(_difference(found[key]) for key in ("map_minus_chance", "map_minus_centre")),
        ]
        for name, found in rates.items()
    ]
    listed = {
        key: cams[key] for key in ("architecture", "weights_sha256", "test_patients_seen_in_pretraining", "boxes")
    }
    title = "## Class-activation maps beside boxes: cams.png"
    return [title, text, game, markdown_table(header, rows), negative, _list(listed)]


def _list(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items())


def _estimate(values: Mapping[str, float | None]) -> str:
    return str(Estimate(*_floats(values)))


def _difference(values: Mapping[str, float | None]) -> str:
    return str(Difference(*_floats(values)))


def _floats(values: Mapping[str, float | None]) -> list[float]:
    """Value, low and high; NaN instead of null."""
    return [float("nan") if (value := values[key]) is None else value for key in ("value", "low", "high")]
