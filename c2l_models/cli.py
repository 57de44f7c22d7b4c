"""The `c2l` command: a thin layer of functions whose flags are their arguments.

Each command imports what it needs when it runs, so that `c2l --help` answers at once.
"""

import errno
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import Positional, arg

from c2l_models.training.commands import pretraining as commands

from .errors import C2LError

if TYPE_CHECKING:
    from .releases.registry import Weights


def list_() -> None:
    """The releases: input, license, training data, metrics."""
    from . import get_weights, list_weights

    for name in list_weights():
        weights = get_weights(name)
        print(f"{name}: {weights.input_size[-1]} pixels, {weights.license}", *weights.trained_on, sep="\n  trained on ")
        print(*(f"  {figure}" for figure in metrics(weights)), sep="\n")


def info(release: Positional[str], json: bool = False) -> None:
    """All that is known of a release: input, training, patients, recipe, metrics, versions.

    Args:
        json: the record and the provenance as they are, as JSON.
    """
    from . import get_weights
    from .releases.info import release_info, shown

    known = release_info(get_weights(release))
    if json:
        from json import dumps

        print(dumps(known, indent=1, ensure_ascii=False))
    else:
        print(shown(known))


def metrics(weights: "Weights") -> list[str]:
    """A release's metrics with their 95 % intervals, a line each."""
    from .releases.info import figure_text

    return [f"{name}: {figure_text(figure)}" for name, figure in weights.metrics.items()]


def verify(release: Positional[str | None] = None) -> None:
    """Check a release's bytes, and that this machine computes the features that its makers computed.

    Args:
        release: by default all of them. The exit status is 1 where one fails.
    """
    from . import list_weights
    from . import verification as verify

    good = True
    for name in [release] if release else list_weights():
        try:
            result = verify.verify(name)
        except C2LError as error:
            if release:
                raise
            good = False
            print(f"{name}: NOT OK: {error}")
            continue
        good &= result.ok
        print(
            f"{result.release}: sha256 {'as registered' if result.sha256_ok else 'WRONG'}, golden embedding off by at "
            f"most {result.max_difference:.1e}, cosine {result.cosine:.7f}: {'ok' if result.ok else 'NOT OK'}"
        )
    if not good:
        sys.exit(1)


def check_leakage(
    list: Positional[Path],
    weights: str,
    out: Path | None = None,
    rsna_mapping: Path | None = None,
    column: str | None = None,
) -> None:
    """Which images and patients of an evaluation list were seen in a release's pretraining.

    Exit status 1 if any was, 3 if none was but of some it cannot be told.

    Args:
        list: text or CSV of image names of ChestX-ray14, patient ids, ids of ours, knees, or RSNA image ids.
        weights: the release.
        out: write the list here without them, and without what cannot be judged.
        rsna_mapping: nih_image_index.csv, or RSNA's JSON: which image of ChestX-ray14 each of RSNA's is.
        column: of a table, its name or number from 1; by default every one that holds names.
    """
    from . import get_weights
    from .releases import leakage

    _check_folder(out)
    found = leakage.check_leakage(list, get_weights(weights), rsna_mapping, column)
    print(found)
    if out:
        print(f"{found.write_cleaned(out):,} rows of patients not seen: {out}")
    if found.seen:
        sys.exit(1)
    if not found.all_judged:
        sys.exit(3)


def _check_folder(out: Path | None) -> None:
    """Before the work: raise C2LError unless there is a folder to write into."""
    if out is not None and not out.absolute().parent.is_dir():
        raise C2LError(f"{out}: no folder {out.parent} to write into; make it, or choose another --out")


def embed(
    folder: Positional[Path], out: Path = Path("features.parquet"), model: str = "resnet18", device: str | None = None
) -> None:
    """Features of every radiograph in a folder, as Parquet; files that cannot be read are listed and left out."""
    from c2l_models.radiographs.listing import image_files

    from . import embedding

    _check_folder(out)
    if not folder.is_dir():
        raise C2LError(f"{folder} is no folder; wanted one that holds radiographs")
    films = [folder / name for name in image_files(folder)]
    embeddings = embedding.embed(films, model=model, device=device, progress=True)
    for path, reason in embeddings.errors.items():
        print(f"left out {path}: {reason}", file=sys.stderr)
    if not embeddings.paths:
        raise C2LError(f"no film in {folder} could be read; wanted PNG, JPEG, TIFF or DICOM files")
    embeddings.save(out)
    print(f"{len(embeddings.paths)} films, {embeddings.features.shape[1]} features each: {out}")


def download(weights: Positional[str], to: Path) -> None:
    """Weights -> a folder that c2l_models and timm load without a network; `sha256sum -c SHA256SUMS` checks it.

    Args:
        weights: a release's name, or hf-hub:owner/name[@revision].
        to: the folder; a new one, or one that this command wrote before.
    """
    from .publishing.release_folder import write_release_folder
    from .releases.registry import resolve

    record = resolve(weights)
    files = write_release_folder(record, to)
    print(f"{record.name} in {to}: {', '.join(file.name for file in files)}")
    print(f'c2l_models.{record.architecture}(weights="{to}"), timm.create_model("local-dir:{to}", pretrained=True)')


def publish(release: Positional[str], namespace: str, out: Path | None = None, dry_run: bool = False) -> None:
    """A release -> a repository of the Hugging Face hub, in timm's layout, with its card; nothing new, no commit.

    Args:
        namespace: a user or an organisation of the hub; the repository is NAMESPACE/RELEASE.
        out: folder for what is sent; published/RELEASE by default.
        dry_run: write the folder, and ask and send nothing.
    """
    from . import get_weights
    from .publishing import publish

    weights = get_weights(release)
    repository = publish.repository_of(weights, namespace)
    files = publish.write_repository(weights, repository, out or Path("published") / weights.name)
    if dry_run:
        print(f"would be sent to {repository}:")
        print(*(f"  {file}, {file.stat().st_size:,} bytes" for file in files), sep="\n")
        return
    done = publish.publish(weights, repository, files)
    sent = f"sent {', '.join(done.sent)}" if done.sent else "nothing new"
    print(f"{repository}: {sent}; commit {done.commit}")


def search(
    query: Positional[str],
    in_: Annotated[Path, arg(name="in")],
    out: Path | None = None,
    k: Annotated[int, arg(aliases=["-k"])] = 8,
    model: str | None = None,
    device: str | None = None,
) -> None:
    """The films nearest to one, by features that `c2l embed` wrote; and a picture of them.

    Args:
        query: a film's file, or its path as it stands in the features.
        in_: the features, a .parquet file.
        out: a .png file for a contact sheet.
        k: how many.
        model: by default the one that the features name.
    """
    from .embedding import Embeddings
    from .search import draw_neighbours, search

    _check_folder(out)

    found = search(query, Embeddings.load(in_), k, model, device)
    for path, cosine in zip(found.paths, found.cosines, strict=True):
        print(f"{cosine:.4f}  {path}")
    if out:
        for film, reason in draw_neighbours(found, out).items():
            print(f"not shown {film}: {reason}", file=sys.stderr)
        print(out)


def convert(
    checkpoint: Positional[Path],
    arch: str,
    out: Path,
    network: Literal["student", "teacher"] = "student",
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    size: int = 224,
    license: str = "unknown",
) -> None:
    """A checkpoint of the paper's authors, MoCo, Lightly or torchvision as a .safetensors file that loads in one line.

    Args:
        checkpoint: a file of torch.save; nothing in it is run.
        arch: resnet18 or densenet121.
        out: ARCH.TAG.safetensors; the tag is recorded.
        network: which of the two, where it holds both.
        mean: of the input that it was trained on, pixels in 0..1: one number or three; by default ImageNet's.
        std: likewise.
        size: side of the images that it is for, pixels.
        license: of the weights, recorded.
    """
    from .publishing.convert import convert
    from .releases.registry import Weights

    _check_folder(out)

    done = convert(checkpoint, out, arch, network, mean, std, size, license)
    weights = Weights.from_file(done.path)
    print(f"{checkpoint}: the {network} at {done.backbone or 'the top'}, {weights.num_params:,} parameters")
    print("dropped: " + (", ".join(f"{name} ({count})" for name, count in done.dropped.items()) or "nothing"))
    if done.counters:
        print(f"set to 0: {done.counters} counts of batches that the checkpoint lacks and evaluation does not use")
    if done.difference:
        print(
            f"mean {_numbers(mean)} and std {_numbers(std)} folded into {weights.mean[0]:g} and {weights.std[0]:g}: "
            f"features of a test picture differ by at most {done.difference:.1e} of the largest, at its border"
        )
    print(f"{done.path}: load it with c2l_models.{arch}(weights={str(done.path)!r})")


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
    **commands.COMMANDS,
}

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
PLACE_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EBUSY}
TRAINING_LIBRARIES = {"matplotlib", "sklearn", "tensorboard", "torchmetrics"}


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"c2l: {message}", file=sys.stderr)
    sys.exit(status)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; an error of ours is one line on stderr and its exit status, 2 unless it has one of its own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in commands.OWN_ARGUMENTS:
            COMMANDS[arguments[0]](arguments[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="c2l", args=arguments, description=__doc__)
    except C2LError as error:
        _fail(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_LIBRARIES:
            raise
        _fail(f"this command needs {error.name}: pip install 'c2l-models[train]'")
    except OSError as error:
        if error.errno not in DISK_ERRORS | PLACE_ERRORS or (not error.filename and error.errno in PLACE_ERRORS):
            raise
        todo = "make room, then give" if error.errno in DISK_ERRORS else "mend the path or its permissions, then give"
        _fail(f"{error.filename or 'the disk'}: {error.strerror}; {todo} the same command again")
    except KeyboardInterrupt:
        sys.exit(130)
