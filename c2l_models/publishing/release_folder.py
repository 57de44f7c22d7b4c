"""Write a folder with all files of a release, for machines without a network and for the hub."""

import hashlib
import os
import shutil
from pathlib import Path

from ..architectures import find_architecture, loading_call
from ..errors import C2LError, WeightsNotFound
from ..files import remove_stale, temporary_beside, write_atomically
from ..hub.weight_file import FILE_NAME, LICENSE_NAME, NOTICES_NAME, PROVENANCE_NAME, locate_beside
from ..releases.provenance import read_provenance
from ..releases.record import Weights
from .timm_folder import write_timm_folder

CARD_NAME, SUMS_NAME = "README.md", "SHA256SUMS"
NAMES = {FILE_NAME, PROVENANCE_NAME, "config.json", CARD_NAME, LICENSE_NAME, NOTICES_NAME, SUMS_NAME}

CC_BY = """licensed under the Creative Commons Attribution 4.0
International License (CC BY 4.0).

You may share and adapt them, also commercially, as long as you give appropriate credit,
link to the license, and say whether changes were made. They come as they are, without
warranties of any kind. The license in full:
https://creativecommons.org/licenses/by/4.0/legalcode"""

LICENSES = {"CC-BY-4.0": CC_BY}
"""The text of each license, by its SPDX name. A license that names its owner, such as MIT, is a file beside the
weights."""


def write_release_folder(weights: Weights, folder: str | os.PathLike[str], card: str | None = None) -> list[Path]:
    """Write a release to `folder`: timm's two files, card, license with notices, provenance, and `SHA256SUMS`.

    `c2l_models.create_model(..., weights=folder)` and `timm.create_model("local-dir:FOLDER", pretrained=True)` load
    the folder; `sha256sum -c SHA256SUMS` checks it. `card`: the text of `README.md`; by default a short text from the
    record. A weight file that is not a release may have no provenance; then the folder has none. Returns the files.

    The folder is written under another name and then renamed, so it is never incomplete. A folder that this function
    wrote before is replaced. Raises `C2LError` if the folder holds other files, `WeightsCorrupted` if the provenance
    beside the weights is of other weights, and as `Weights.read`.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not _is_ours(folder):
        raise C2LError(f"expected a new or empty folder, or a release, found other files in {folder}; choose another")
    if folder.is_mount():
        raise C2LError(f"{folder} is a mount point; choose a folder inside it, such as {folder / weights.name}")
    if _beside(weights, PROVENANCE_NAME) is not None:
        read_provenance(weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (temporary_beside(folder, end) for end in ("part", "old"))
    try:
        write_timm_folder(weights, new)
        files = {CARD_NAME: (card or plain_card(weights)).encode(), LICENSE_NAME: license_text(weights).encode()}
        optional = (PROVENANCE_NAME, NOTICES_NAME)
        files |= {name: data for name in optional if (data := _beside(weights, name)) is not None}
        for name, data in files.items():
            write_atomically(new / name, data)
        names = sorted(path.name for path in new.iterdir())
        sums = [f"{hashlib.sha256((new / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
        write_atomically(new / SUMS_NAME, "".join(sums).encode())
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
    remove_stale(folder)
    return [folder / name for name in (*names, SUMS_NAME)]


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty, or holds a complete release and no other file."""
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    return not held or {SUMS_NAME, FILE_NAME} <= held <= NAMES


def license_text(weights: Weights) -> str:
    """Return the license file beside the weights, or the known text of the license, or only its name."""
    if weights.license in LICENSES:
        return f"The weights {weights.name} are {LICENSES[weights.license]}\n"
    data = _beside(weights, LICENSE_NAME)
    return data.decode() if data else f"The weights {weights.name} are licensed: {weights.license}\n"


def kept_notices(weights: Weights) -> str:
    """Return the text that must stay with weights made from these: a license that names its owner, or the notices."""
    data = _beside(weights, NOTICES_NAME if weights.license in LICENSES else LICENSE_NAME)
    return data.decode() if data else ""


def _beside(weights: Weights, name: str) -> bytes | None:
    """Read a file beside the weights; None if there is none. Raises as `weight_file.locate_beside`."""
    try:
        return locate_beside(weights.location, name).read_bytes()
    except WeightsNotFound:
        return None


def plain_card(weights: Weights) -> str:
    """Return a short card from the record: front matter for the hub, then Markdown."""
    side, features = weights.input_size[-1], find_architecture(weights.architecture).num_features
    trained_on = "\n".join(f"- {source}" for source in weights.trained_on) or "- not recorded"
    return (
        f"---\nlicense: {weights.license.lower()}\nlibrary_name: timm\npipeline_tag: image-feature-extraction\n---\n"
        f"# {weights.name}\n\n{weights.architecture}, {weights.num_params:,} parameters, {features} features of a "
        f"radiograph of {side}×{side} pixels: one grey channel in 0..1, minus {weights.mean[0]}, divided by "
        f"{weights.std[0]}. Recipe: {weights.recipe}. Trained on:\n\n{trained_on}\n\n"
        f"Not a diagnostic device. License: {weights.license}, see {LICENSE_NAME}.\n\n```python\n"
        "import c2l_models, timm\n\n"
        f"model = {loading_call(weights.architecture, 'FOLDER', in_chans=1)}\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True, in_chans=1)  # timm >= 1.0.16\n```\n\n'
        f"`sha256sum -c {SUMS_NAME}` checks the copy.\n"
    )
