"""`c2l embed` and `search`: features of the user's films, and similar films.

Each command imports its modules when it runs, so that `c2l --help` answers at once.
"""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import C2LError, MachineError
from ..files import check_file
from ..progress import stage
from ..ray_engine import check_address

if TYPE_CHECKING:
    from ..readouts import Readout
    from ..resumed_embedding import Embedded


def embed(
    films: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILM|FOLDER …")],
    out: Path = Path("features.parquet"),
    model: str = "resnet18",
    device: str | None = None,
    features: Literal["pooled", "multiscale"] = "pooled",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> None:
    """Write the features of radiographs to a file: of single films, and of all films in folders.

    Files that cannot be read are listed and skipped. If this machine is the cause (disk, memory, missing decoder), the
    call stops instead. The rows name each film by its path: as given, or FOLDER/PATH. A call that was interrupted or
    stopped resumes if it is repeated.

    Args:
        films: PNG, JPEG, TIFF, BMP or DICOM files, and folders with such files.
        out: the file to write; .parquet, .npz, .npy (features only) or .csv.
        model: an architecture (its default release is used), a release, a .safetensors file or hf-hub:owner/name.
        device: a torch device, such as cpu or cuda; CUDA by default if available.
        features: pooled is the network's last feature map, averaged; multiscale the last three, concatenated.
        engine: local computes in this process; ray on a Ray cluster, one worker per GPU or core (extra [ray]).
        address: the Ray cluster, such as auto or HOST:6379; by default RAY_ADDRESS, a cluster that runs on this
            machine, or a new one with its cores and GPUs.
    """
    from ..feature_files import check_format
    from ..radiographs.inputs import find_images
    from ..radiographs.listing import left_out_count, left_out_lines

    check_file(out)
    check_format(out)
    check_address(engine, address)
    _stop_at_signals()
    with stage("embed", show=True):
        inputs = find_images(_some(films, "FILM or FOLDER"))
        for line in left_out_lines(inputs.left_out):
            print(line, file=sys.stderr)
        if engine == "ray":
            count, width, errors = _embed_on_ray(inputs.images, out, model, device, features, address)
        else:
            count, width, errors = _embed_here(inputs.images, out, model, device, features)
    for path, reason in errors.items():
        print(f"left out {path}: {reason}", file=sys.stderr)
    more = left_out_count(len(inputs.left_out) + len(errors))
    print(f"{count} films, {width} features each: {out}{more}")


def _embed_here(images: list[Path], out: Path, model: str, device: str | None, features: "Readout") -> "Embedded":
    _import_torch_and_timm()
    from ..embedding import EmbedInterrupted, EmbedStopped
    from ..resumed_embedding import Embedded, embed_to_file, partial_of

    try:
        embeddings = embed_to_file(images, out, model, device, features, progress=True)
    except (EmbedInterrupted, EmbedStopped) as stop:
        count = len(stop.embeddings.paths)
        after, kept = f"after {count:,} of {len(images):,} films", f"the features are kept in {partial_of(out)}"
        if isinstance(stop, EmbedStopped):
            done = f" {after}; {kept}" if count else ""
            todo = "correct the cause, or move the file away, then repeat the command to resume"
            raise MachineError(f"{stop}. Stopped{done}; {todo}") from None
        if count:
            print(f"c2l: interrupted {after}; {kept}, and the same command resumes", file=sys.stderr)
        raise
    return Embedded(len(embeddings.paths), embeddings.features.shape[1], embeddings.errors)


def _stop_at_signals() -> None:
    """Let a scheduler's SIGTERM and a closed terminal's SIGHUP interrupt this process as Ctrl-C does.

    Both are often sent twice, so further ones are ignored: they would interrupt the writing of the rows so far.
    """
    import signal

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def stop(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, stop)


def _import_torch_and_timm() -> None:
    """Import both without garbage collection, a tenth of the command's time: they leave many objects and no garbage."""
    if "timm" in sys.modules:
        return
    gc.disable()
    try:
        import timm  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def _embed_on_ray(
    images: list[Path], out: Path, model: str, device: str | None, features: "Readout", address: str | None
) -> "Embedded":
    from ..ray_embedding import embed_on_ray, parts_of

    try:
        return embed_on_ray(images, out, model, device, features, address)
    except KeyboardInterrupt:
        kept = f"finished parts are kept in {parts_of(out)}, and the same command resumes"
        print(f"c2l: interrupted; {kept}", file=sys.stderr)
        raise


def search(
    films: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILM|FOLDER …")],
    in_: Annotated[Path, arg(name="in", metavar="FEATURES")],
    out: Path | None = None,
    k: Annotated[int, arg(aliases=["-k"])] = 8,
    model: str | None = None,
    device: str | None = None,
) -> None:
    """List the films nearest to a query film, by features that `c2l embed` wrote; optionally draw them.

    With several queries, each is printed before its nearest films.

    Args:
        films: the queries: image files, folders with images, or paths that are listed in the features file.
        in_: the .parquet or .npz file that `c2l embed` wrote.
        out: a .png file, in which each query and the nearest films are drawn in a row; by default none.
        k: number of nearest films of each query.
        model: as for `c2l embed`; by default the model recorded in the features file.
        device: a torch device, such as cpu or cuda; CUDA by default if available.
    """
    from ..radiographs.listing import left_out_count

    if out:
        check_file(out)
        if out.suffix.lower() != ".png":
            raise C2LError(f"--out {out}: expected a name that ends in .png; choose another name")
    with stage("search", show=True):
        from ..embedding import Embeddings
        from ..search import draw_neighbours, search_all

        films, table = _some(films, "FILM or FOLDER"), Embeddings.load(in_)
        found, errors = search_all(_queries(films, table.paths), table, k, model, device)
    for film, reason in errors.items():
        print(f"left out {film}: {reason}", file=sys.stderr)
    for neighbours in found:
        if len(found) + len(errors) > 1:
            print(neighbours.query)
        for path, cosine in zip(neighbours.paths, neighbours.cosines, strict=True):
            copy = "  (a copy of the query: same bytes)" if path in neighbours.copies else ""
            print(f"{cosine:.4f}  {path}{copy}")
    if out:
        missing = draw_neighbours(found, out)
        for film, reason in missing.items():
            print(f"left out {film}: {reason}", file=sys.stderr)
        print(f"{out}{left_out_count(len(missing))}")


def _some(films: tuple[Path, ...], what: str) -> tuple[Path, ...]:
    if not films:
        raise C2LError(f"expected at least one {what}, found none; name it after the command")
    return films


def _queries(films: tuple[Path, ...], listed: list[Path]) -> list[Path]:
    """The queries that some files and folders name. A path of the features file need not exist any more."""
    from ..radiographs.inputs import find_images

    queries: list[Path] = []
    for film in films:
        queries += [film] if film in listed or not film.is_dir() else find_images([film]).images
    return list(dict.fromkeys(queries))
