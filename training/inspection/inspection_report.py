"""look.md: what the pictures show, from what look.json holds."""

import json
from collections.abc import Mapping
from typing import Any

from ..evaluation.intervals import Difference, Estimate
from ..evaluation.markdown import markdown_table
from .pointing import OVERALL


def markdown(facts: Mapping[str, Any]) -> str:
    """The pictures, each with what is needed to read it."""
    parts = [f"# What the features of {facts['target']} hold", *_neighbours(facts), *_map(facts)]
    if "cams" in facts:
        parts += _cams(facts["cams"])
    plain = {key: value for key, value in facts.items() if key not in ("neighbours", "map", "cams")}
    listed = [f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    return "\n\n".join([*parts, "## Computed on, and with", "\n".join(listed)]) + "\n"


def _neighbours(facts: Mapping[str, Any]) -> list[str]:
    rows = [
        (query["film"], "; ".join(f"{one['film']} ({one['cosine']:.3f})" for one in query["nearest"]))
        for query in facts["neighbours"]
    ]
    said = (
        "Test films drawn by chance, of each data set one of its first group and others of groups that were drawn, and "
        "the training films whose features have the highest cosine with theirs; films of a query's own patient are "
        "left out. A caption in colour is the query's own."
    )
    return [
        "## Nearest neighbours: neighbours.png",
        said,
        markdown_table(("test film", "nearest training films, cosine"), rows, align="ll"),
    ]


def _map(facts: Mapping[str, Any]) -> list[str]:
    said = (
        "Features of the test films on the first two principal components of the training films' features; of each "
        "data set, of its own. Every panel of a data set shows the same points. What two components do not separate, "
        "others may: a probe says what the features tell."
    )
    shares = [
        f"- {name}: {100 * first:.1f} % and {100 * second:.1f} % of the variance"
        for name, (first, second) in facts["map"].items()
    ]
    return ["## Map: map.png", said, "\n".join(shares)]


def _cams(cams: Mapping[str, Any]) -> list[str]:
    height, width = cams["map"]
    metrics = cams["pointing_game"]
    overall = metrics[OVERALL]
    said = (
        f"Maps of {cams['start']}, fine-tuned on ChestX-ray14 (epoch {cams['epoch']}, mean AUROC "
        f"{_estimate(cams['mean_auroc'])}), at {cams['size']} pixels: {height} × {width} cells, each its share of the "
        "logit (Zhou et al., CVPR 2016). The cells are all that a map can tell of a place: what is smooth in the "
        f"picture is drawn between them. {cams['drawn']} findings were drawn by chance, as evenly over the findings as "
        "can be."
    )
    game = (
        f"The pointing game, over all {overall['films']} findings with a box on the test films, of "
        f"{overall['patients']} patients; neither fine-tuning nor the choice of its epoch saw any of them. Map: the "
        "centre of the map's largest cell lies in the box. Chance: a place drawn from the whole film, so the box's "
        "share of it. Centre: the film's centre lies in the box. 95 % intervals over "
        f"{cams['bootstrap']} resamples of whole patients; differences are paired. Where all or none of a finding's "
        "films are hit, resamples cannot differ, and the interval says nothing."
    )
    against = (
        f"In {cams['maps_without_a_cell_for_the_finding']} of the {overall['films']} maps every cell speaks against "
        "the finding (is not above 0): the largest is then no more than the one that does so least."
    )
    header = ["finding", "films", "patients", "map", "chance", "centre", "map minus chance", "map minus centre"]
    rows = [
        [
            name.replace("_", " "),
            str(found["films"]),
            str(found["patients"]),
            *(_estimate(found[key]) for key in header[3:6]),
            *(_difference(found[key]) for key in header[6:]),
        ]
        for name, found in metrics.items()
    ]
    table = markdown_table(header, rows)
    told = {key: cams[key] for key in ("architecture", "weights_sha256", "test_patients_seen_in_pretraining", "boxes")}
    listed = "\n".join(f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items())
    return ["## Class-activation maps beside boxes: cams.png", said, game, table, against, listed]


def _estimate(figure: Mapping[str, float | None]) -> str:
    return str(Estimate(*_values(figure)))


def _difference(figure: Mapping[str, float | None]) -> str:
    return str(Difference(*_values(figure)))


def _values(figure: Mapping[str, float | None]) -> list[float]:
    """Value, low and high; NaN for what is null."""
    return [float("nan") if (value := figure[key]) is None else value for key in ("value", "low", "high")]
