"""`c2l embed` and `search`: features of the user's films, and similar films.

Each command imports its modules when it runs, so that `c2l --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import C2LError
from ..files import check_file


def embed(
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")],
    out: Path = Path("features.parquet"),
    model: str = "resnet18",
    device: str | None = None,
    features: Literal["pooled", "multiscale"] = "pooled",
) -> None:
    """Write the features of every radiograph in a folder to a file; unreadable files are listed and skipped.

    An interrupted call resumes if it is repeated.

    Args:
        folder: a folder with PNG, JPEG, TIFF or DICOM files.
        out: the file to write; .parquet, .npz, .npy (features only) or .csv.
        model: an architecture (its default release is used), a release, a .safetensors file or hf-hub:owner/name.
        device: a torch device, such as cpu or cuda; CUDA by default if available.
        features: pooled is the network's last feature map, averaged; multiscale the last three, concatenated.
    """
    import signal

    from ..embedding import EmbedInterrupted
    from ..feature_files import check_format
    from ..radiographs.listing import left_out_count, left_out_lines, list_images
    from ..resumed_embedding import embed_to_file, partial_of

    check_file(out)
    check_format(out)
    if not folder.is_dir():
        raise C2LError(f"expected a folder with radiographs, found no folder {folder}")
    listing = list_images(folder)
    left_out = listing.all_left_out()
    for line in left_out_lines(left_out):
        print(line, file=sys.stderr)
    images = [folder / name for name in listing.images]
    if not images:
        raise C2LError(f"expected PNG, JPEG, TIFF or DICOM files in {folder}, found none")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's request to stop, as Ctrl-C
    try:
        embeddings = embed_to_file(images, out, model, device, features, progress=True)
    except EmbedInterrupted as stop:
        if count := len(stop.embeddings.paths):
            kept = f"the features are kept in {partial_of(out)}, and the same command resumes"
            print(f"c2l: interrupted after {count:,} of {len(images):,} films; {kept}", file=sys.stderr)
        raise
    for path, reason in embeddings.errors.items():
        print(f"left out {path}: {reason}", file=sys.stderr)
    more = left_out_count(len(left_out) + len(embeddings.errors))
    print(f"{len(embeddings.paths)} films, {embeddings.features.shape[1]} features each: {out}{more}")


def search(
    query: Annotated[Positional[str], arg(metavar="QUERY")],
    in_: Annotated[Path, arg(name="in")],
    out: Path | None = None,
    k: Annotated[int, arg(aliases=["-k"])] = 8,
    model: str | None = None,
    device: str | None = None,
) -> None:
    """List the films nearest to a query film, by features that `c2l embed` wrote; optionally draw them.

    Args:
        query: an image file, or a path that is listed in the features file.
        in_: the .parquet or .npz file that `c2l embed` wrote.
        out: a .png file, in which the query and the nearest films are drawn.
        k: number of nearest films.
        model: as for `c2l embed`; by default the model recorded in the features file.
        device: a torch device, such as cpu or cuda; CUDA by default if available.
    """
    from ..embedding import Embeddings
    from ..radiographs.listing import left_out_count
    from ..search import draw_neighbours, search

    if out:
        check_file(out)
        _check_suffix(out, ".png")
    found = search(query, Embeddings.load(in_), k, model, device)
    for path, cosine in zip(found.paths, found.cosines, strict=True):
        print(f"{cosine:.4f}  {path}{'  (a copy of the query: same bytes)' if path in found.copies else ''}")
    if out:
        missing = draw_neighbours(found, out)
        for film, reason in missing.items():
            print(f"left out {film}: {reason}", file=sys.stderr)
        print(f"{out}{left_out_count(len(missing))}")


def _check_suffix(out: Path, suffix: str) -> None:
    if out.suffix.lower() != suffix:
        raise C2LError(f"--out {out}: expected a name that ends in {suffix}; choose another name")
