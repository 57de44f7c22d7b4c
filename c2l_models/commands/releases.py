"""`c2l list`, `info`, `verify`, `check-leakage` and `download`: the released weights.

Each command imports its modules when it runs, so that `c2l --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..architectures import loading_call
from ..errors import C2LError
from ..files import check_file, check_folder
from ..progress import stage

Release = Annotated[Positional[str], arg(metavar="RELEASE")]


def list_() -> None:
    """List the releases: input size, license, training data, metrics."""
    from .. import get_weights, list_weights
    from ..releases.info import metric_lines

    for name in list_weights():
        weights = get_weights(name)
        print(f"{name}: {weights.input_size[-1]} pixels, {weights.license}", *weights.trained_on, sep="\n  ")
        print(*(f"  {line}" for line in metric_lines(weights)), sep="\n")


def info(release: Release, json: bool = False) -> None:
    """Show everything recorded about a release: input, training data, patients, recipe, metrics, versions.

    Args:
        release: a release's name.
        json: print the record and the provenance unchanged, as JSON.
    """
    from .. import get_weights
    from ..releases.info import format_info, release_info

    recorded = release_info(get_weights(release))
    if json:
        from json import dumps

        print(dumps(recorded, indent=1, ensure_ascii=False))
    else:
        print(format_info(recorded))


def verify(release: Annotated[Positional[str | None], arg(metavar="[RELEASE]")] = None) -> None:
    """Check a release's bytes, and that this machine computes the features that were recorded with the release.

    The exit status is 1 if any check fails.

    Args:
        release: a release's name; by default all releases are checked.
    """
    from .. import list_weights

    names, all_ok = [release] if release else list_weights(), True
    with stage("verify", len(names), "releases", show=True) as line:
        from .. import verification

        for name in names:
            try:
                result = verification.verify(name)
            except C2LError as error:
                if release:
                    raise
                all_ok = False
                print(f"{name}: NOT OK: {error}")
                continue
            all_ok &= result.ok
            print(
                f"{result.release}: sha256 {'matches' if result.sha256_ok else 'DIFFERS'}, golden embedding differs by "
                f"at most {result.max_difference:.1e}, cosine {result.cosine:.7f}: {'ok' if result.ok else 'NOT OK'}"
            )
            line.advance()
    if not all_ok:
        sys.exit(1)


def check_leakage(
    list: Annotated[Positional[Path], arg(metavar="LIST")],
    weights: str,
    out: Path | None = None,
    rsna_mapping: Path | None = None,
    column: str | None = None,
) -> None:
    """Report which patients of an evaluation list a release was pretrained on.

    The exit status is 1 if any patient was seen, and 3 if none was seen but some rows cannot be judged.

    Args:
        list: text or CSV file with image names (ChestX-ray14, knee_kl, FracAtlas, implants), RSNA image ids, or
            patient ids (a number, or DATASET:NUMBER such as chestxray14:00001336).
        weights: a release's name.
        out: file for a copy of the list without the rows that were seen or cannot be judged; by default none.
        rsna_mapping: file that maps each RSNA image to its ChestX-ray14 image: nih_image_index.csv or RSNA's JSON. By
            default none, and RSNA image ids cannot be judged.
        column: name, or number from 1, of the only column to check; by default all image names and ids of a row are
            checked.
    """
    from .. import get_weights
    from ..releases import leakage

    if out:
        check_file(out)
    result = leakage.check_leakage(list, get_weights(weights), rsna_mapping, column)
    print(result)
    if out:
        print(f"wrote {result.write_cleaned(out):,} rows of patients not seen to {out}")
    if result.seen:
        sys.exit(1)
    if not result.all_judged:
        sys.exit(3)


def download(weights: Annotated[Positional[str], arg(metavar="WEIGHTS")], to: Path) -> None:
    """Write weights to a folder that c2l_models and timm load without a network.

    `sha256sum -c SHA256SUMS` in the folder checks the files.

    Args:
        weights: a release's name, or hf-hub:owner/name[@revision].
        to: the folder; it must be new, empty or written by an earlier `c2l download`.
    """
    check_folder(to, "--to")
    with stage("download", show=True):
        from ..publishing.release_folder import write_release_folder
        from ..releases.registry import resolve

        record = resolve(weights)
        files = write_release_folder(record, to)
    print(f"wrote {record.name} to {to}: {', '.join(file.name for file in files)}")
    print(
        f'load it with {loading_call(record.architecture, to)} or timm.create_model("local-dir:{to}", pretrained=True)'
    )
