"""The average of a run's weights and of other weights of its architecture, as a run folder that can be released.

Networks that began with the same weights can be averaged, and also with those weights themselves (Wortsman et al.,
"Model soups", ICML 2022; "Robust fine-tuning of zero-shot models", CVPR 2022). Probe and export recalibrate batch norm,
which the average needs.
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from c2l_models.errors import RunError

from ..initialization import Initialization, load_initialization
from ..recipe_files import from_dict
from ..run import facts_of
from ..run_files import checkpoint
from ..run_files.run_folder import load_run_store, read_initialization
from ..run_files.slim import copy_run

COMPARED = ("architecture", "mean", "std")
"""Attributes of an initialization that all parts must share."""


def average_run(shares: Mapping[str, float], out: Path, store_folder: Path | None = None) -> Path:
    """Write a slim run whose backbone is an average of weights. It can be probed, exported and released.

    Its recipe, store and log are those of the first part, which is a run. `initialization.json` lists all parts, with
    their shares.

    Args:
        shares: a share for each run folder, release or .safetensors file, as `read_shares` returns them.
        out: the new folder; must not exist.
        store_folder: the store that the first run trained on; None: where it was then.

    Returns:
        The file of the slim checkpoint.

    Raises:
        RunError: the first part is an average itself, a part's architecture or normalisation is not the first's, or
            `out` exists.
        C2LError: as `load_initialization`.
    """
    run_folder = Path(next(iter(shares)))
    state = checkpoint.load(run_folder).state
    recipe = from_dict(state["recipe"])
    if not recipe.recalibrate:
        raise RunError(f"{run_folder}: expected `recalibrate = true` in its recipe, because an average needs it")
    began = read_initialization(run_folder)
    if "averaged" in began:
        raise RunError(
            f"{run_folder}: expected a run of `c2l pretrain`, found an average, whose parts the copy would not list; "
            f"name its parts ({', '.join(began['averaged'])}) and their shares instead"
        )
    store = load_run_store(run_folder, store_folder)
    parts = [load_initialization(spec, recipe.architecture, recipe.size, store=store) for spec in shares]
    check_alike(parts)
    initialization = began | {"averaged": describe_parts(parts, list(shares.values()))}
    backbone = average([part.network.state_dict() for part in parts], list(shares.values()))
    prefix = f"{recipe.exported}.backbone."
    return copy_run(run_folder, out, state, {prefix + key: value for key, value in backbone.items()}, initialization)


def read_shares(file: Path) -> dict[str, float]:
    """Read a file of shares: the weights' names, the first a run folder, and their shares, which sum to 1.

    Raises RunError if the file is anything else.
    """
    try:
        shares: Any = tomllib.loads(file.read_text(encoding="utf-8-sig")).get("shares")
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}; name a TOML file with a table `shares`") from error
    except ValueError as error:
        raise RunError(f"{file}: expected TOML with a table `shares`; {error}") from error
    numbers = isinstance(shares, dict) and all(type(share) in (int, float) and share > 0 for share in shares.values())
    if not numbers or len(shares) < 2 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise RunError(
            f"{file}: expected a table `shares` with a positive number for each of two or more weights, and the sum 1; "
            f"found {shares!r}"
        )
    if not (Path(first := next(iter(shares))) / "run.json").is_file():
        raise RunError(f"{file}: expected a run folder as the first of `shares`, found {first!r}; name the run first")
    return shares


def check_alike(parts: list[Initialization]) -> None:
    """Raise RunError unless all parts have the first's architecture and normalisation."""
    first = parts[0]
    for part in parts[1:]:
        for key in COMPARED:
            if getattr(part, key) != getattr(first, key):
                raise RunError(
                    f"{part.name} cannot be averaged with {first.name}: expected {key} {getattr(first, key)}, found "
                    f"{getattr(part, key)}"
                )


def describe_parts(parts: list[Initialization], shares: list[float]) -> dict[str, dict[str, Any]]:
    """Share and facts of each part, by its name: a release shows them, and a typed path could name a person."""
    described: dict[str, dict[str, Any]] = {}
    for number, (part, share) in enumerate(zip(parts, shares, strict=True), 1):
        name = part.name if part.name not in described else f"{part.name}, part {number}"
        described[name] = {"share": share, **facts_of(part)}
    return described


def average(states: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    """Average state dicts of one architecture. Integers, which only count batches, are the first's."""
    first = states[0]
    return {
        key: sum((share * state[key] for share, state in zip(shares, states, strict=True)), start=tensor.new_zeros(()))
        if tensor.is_floating_point()
        else tensor
        for key, tensor in first.items()
    }
