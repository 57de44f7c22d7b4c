"""The `c2l` commands that work without the training pipeline: functions whose flags are their arguments.

Each command imports its modules when it runs, so that `c2l --help` answers at once.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from .architectures import loading_call
from .errors import C2LError
from .files import check_file
from .optional_training import require_training

Release = Annotated[Positional[str], arg(metavar="RELEASE")]


def list_() -> None:
    """List the releases: input size, license, training data, metrics."""
    from . import get_weights, list_weights
    from .releases.info import metric_lines

    for name in list_weights():
        weights = get_weights(name)
        print(f"{name}: {weights.input_size[-1]} pixels, {weights.license}", *weights.trained_on, sep="\n  trained on ")
        print(*(f"  {line}" for line in metric_lines(weights)), sep="\n")


def info(release: Release, json: bool = False) -> None:
    """Show everything recorded about a release: input, training data, patients, recipe, metrics, versions.

    Args:
        release: a release's name.
        json: print the record and the provenance unchanged, as JSON.
    """
    from . import get_weights
    from .releases.info import format_info, release_info

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
    from . import list_weights, verification

    all_ok = True
    for name in [release] if release else list_weights():
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
            f"{result.release}: sha256 {'matches' if result.sha256_ok else 'DIFFERS'}, golden embedding differs by at "
            f"most {result.max_difference:.1e}, cosine {result.cosine:.7f}: {'ok' if result.ok else 'NOT OK'}"
        )
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
        list: text or CSV file with image names (ChestX-ray14, knee_kl), RSNA image ids, or patient ids (a number, or
            DATASET:NUMBER such as chestxray14:00001336).
        weights: a release's name.
        out: file for a copy of the list without the rows that were seen or cannot be judged.
        rsna_mapping: file that maps each RSNA image to its ChestX-ray14 image: nih_image_index.csv or RSNA's JSON.
        column: name, or number from 1, of the only column to check; by default all image names and ids of a row are
            checked.
    """
    from . import get_weights
    from .releases import leakage

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

    from .embedding import EmbedInterrupted
    from .feature_files import check_format
    from .radiographs.listing import list_images
    from .resumed_embedding import embed_to_file, partial_of

    check_file(out)
    check_format(out)
    if not folder.is_dir():
        raise C2LError(f"expected a folder with radiographs, found no folder {folder}")
    listing = list_images(folder)
    print(*listing.report(), sep="\n", end="\n" * bool(listing.count_left_out), file=sys.stderr)
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
        print(f"skipped {path}: {reason}", file=sys.stderr)
    left_out = listing.count_left_out + len(embeddings.errors)
    more = f"; {left_out:,} files left out" if left_out else ""
    print(f"{len(embeddings.paths)} films, {embeddings.features.shape[1]} features each: {out}{more}")


def download(weights: Annotated[Positional[str], arg(metavar="WEIGHTS")], to: Path) -> None:
    """Write weights to a folder that c2l_models and timm load without a network.

    `sha256sum -c SHA256SUMS` in the folder checks the files.

    Args:
        weights: a release's name, or hf-hub:owner/name[@revision].
        to: the folder; it must be new, empty or written by an earlier `c2l download`.
    """
    from .publishing.release_folder import write_release_folder
    from .releases.registry import resolve

    record = resolve(weights)
    files = write_release_folder(record, to)
    print(f"wrote {record.name} to {to}: {', '.join(file.name for file in files)}")
    print(
        f'load it with {loading_call(record.architecture, to)} or timm.create_model("local-dir:{to}", pretrained=True)'
    )


def publish(release: Release, namespace: str, out: Path | None = None, dry_run: bool = False) -> None:
    """Upload a release to a Hugging Face repository, in timm's layout, with its model card.

    If the repository already holds the same files, nothing is uploaded.

    Args:
        release: a release's name.
        namespace: a user or organisation of the hub; the repository is NAMESPACE/RELEASE.
        out: folder for a local copy of the uploaded files; published/RELEASE by default.
        dry_run: write the local folder, and send no request to the hub.
    """
    from . import get_weights
    from .publishing import publish

    weights = get_weights(release)
    repository = publish.repository_of(weights, namespace)
    files = publish.write_repository(weights, repository, out or Path("published") / weights.name)
    if dry_run:
        print(f"dry run: these files would be uploaded to {repository}:")
        print(*(f"  {file}, {file.stat().st_size:,} bytes" for file in files), sep="\n")
        return
    done = publish.publish(weights, repository, files)
    sent = f"uploaded {', '.join(done.sent)}" if done.sent else "already up to date"
    print(f"{repository}: {sent}; commit {done.commit}")


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
    from .embedding import Embeddings
    from .search import draw_neighbours, search

    if out:
        check_file(out)
        _check_suffix(out, ".png")
    found = search(query, Embeddings.load(in_), k, model, device)
    for path, cosine in zip(found.paths, found.cosines, strict=True):
        print(f"{cosine:.4f}  {path}{'  (a copy of the query: same bytes)' if path in found.copies else ''}")
    if out:
        for film, reason in draw_neighbours(found, out).items():
            print(f"not drawn {film}: {reason}", file=sys.stderr)
        print(out)


def convert(
    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")],
    arch: str,
    out: Path,
    network: Literal["student", "teacher"] = "student",
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    input_mean: float | None = None,
    input_std: float | None = None,
    size: int = 224,
    license: str = "unknown",
    trained_on: tuple[str, ...] = ("not recorded in the checkpoint",),
    origin: str = "not recorded",
    patients: Literal["unknown", "none"] = "unknown",
) -> None:
    """Convert a checkpoint of the paper's authors, MoCo, Lightly or torchvision to a .safetensors file.

    The provenance, with origin, conversion and golden embedding, is written beside it as .json.

    Args:
        checkpoint: a .safetensors file, or a file written by torch.save, whose code is never run.
        arch: the architecture, for example resnet18.
        out: ARCH.TAG.safetensors; the tag is recorded in the file.
        network: the network to take if the checkpoint holds a student and a teacher.
        mean: mean of the training input, for pixels in 0..1: one number or three; by default ImageNet's.
        std: standard deviation of the training input: one number or three; by default ImageNet's.
        input_mean: the one mean that the converted network expects; by default the average of --mean.
        input_std: the one standard deviation that it expects; by default the average of --std.
        size: side of the images that the weights are meant for, pixels.
        license: license of the weights, recorded in the file.
        trained_on: the training data, recorded in the file: one text per data set, which begins with its name.
        origin: where the checkpoint comes from, recorded in the provenance.
        patients: none records that the training data contain no radiograph, so no patient was seen.
    """
    from .publishing.convert import convert
    from .releases.record import Weights

    check_file(out)
    done = convert(
        checkpoint, out, arch, network, mean, std, size, license, input_mean, input_std, trained_on, origin, patients
    )
    weights = Weights.from_file(done.path)
    print(f"{checkpoint}: found the {network} at {done.backbone or 'the top level'}, {weights.num_params:,} parameters")
    print("dropped: " + (", ".join(f"{name} ({count})" for name, count in done.dropped.items()) or "nothing"))
    if done.counters:
        print(f"set to 0: {done.counters} batch counters that the checkpoint lacks and inference does not use")
    if done.difference:
        print(
            f"mean {_numbers(mean)} and std {_numbers(std)} folded into {weights.mean[0]:g} and {weights.std[0]:g}: "
            f"features of a test image change by at most {done.difference:.1e} of the largest feature, because the "
            "padding at the border has another value"
        )
    print(f"{done.path}: load it with {loading_call(arch, done.path)}; provenance: {done.provenance}")


def export(
    target: Annotated[Positional[str], arg(metavar="WEIGHTS", help="a run folder, a release, or a .safetensors file")],
    out: Path,
    format: Literal["safetensors", "onnx", "pt2"] | None = None,
    teacher: bool = False,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
    best: bool = False,
) -> None:
    """Export a release, a weight file or a pretraining run as .safetensors, ONNX or .pt2 (torch.export).

    ONNX and .pt2 files take images [B, 1, S, S], describe the preprocessing in their metadata, and are written only if
    they compute the network's features. Exporting a run folder needs the training pipeline.

    Args:
        out: the file to write.
        format: by default the suffix of the file's name.
        teacher: for a run: export the teacher; by default the network that the recipe's key `exported` names.
        tag: for a run: tag of the weights, recorded in the file.
        size: for a run: side of the images that the weights are meant for, pixels; by default the recipe's size.
        license: for a run: license of the weights, recorded in the file.
        best: for a run: export the checkpoint with the highest k-NN AUROC instead of the last one.
    """
    from tempfile import TemporaryDirectory

    from .publishing.export import FORMATS, export_weights, is_run_folder

    chosen = format or out.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise C2LError(f"expected --format, or --out with a name that ends in .{', .'.join(FORMATS)}; found {out}")
    check_file(out)
    if is_run_folder(target):
        require_training("exporting a run folder")
        from .training.run_files.backbone import export_run

        options = (None, teacher or None, tag, size, license, best)
        if chosen == "safetensors":
            print(export_run(Path(target), out, *options))
            return
        with TemporaryDirectory() as folder:
            file = export_run(Path(target), Path(folder) / "run.safetensors", *options)
            done = export_weights(file, out, chosen)
    else:
        if teacher or best or (tag, size, license) != ("custom", None, "unknown"):
            raise C2LError(
                f"--teacher, --best, --tag, --size and --license need a run folder, found {target}; leave them out"
            )
        done = export_weights(target, out, chosen)
    print(f"{done.path}: features differ from the network's by at most {done.difference:.1e} of the largest feature")


def _check_suffix(out: Path, suffix: str) -> None:
    if out.suffix.lower() != suffix:
        raise C2LError(f"--out {out}: expected a name that ends in {suffix}; choose another name")


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


COMMANDS: dict[str, Callable[..., Any]] = {
    "list": list_,
    "info": info,
    "verify": verify,
    "download": download,
    "publish": publish,
    "check-leakage": check_leakage,
    "embed": embed,
    "search": search,
    "convert": convert,
    "export": export,
}
