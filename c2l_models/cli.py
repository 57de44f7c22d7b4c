"""The `c2l` command: a thin layer of functions whose flags are their arguments.

Each command imports what it needs when it runs, so that `c2l --help` answers at once.
"""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import tyro
from tyro.conf import Positional

from c2l_models.training import commands

from .errors import C2LError

if TYPE_CHECKING:
    from .weights import Weights


def list_() -> None:
    """The releases: input, license, training data, figures."""
    from . import get_weights, list_weights

    for name in list_weights():
        weights = get_weights(name)
        print(f"{name}: {weights.input_size[-1]} pixels, {weights.license}", *weights.trained_on, sep="\n  trained on ")
        print(*(f"  {figure}" for figure in figures(weights)), sep="\n")


def info(release: Positional[str]) -> None:
    """A release's record, and where it came from."""
    import json

    from . import get_weights

    weights = get_weights(release)
    record = {**weights.config, "sha256": weights.sha256, "file": str(weights.path()), "measured": figures(weights)}
    provenance = json.loads(weights.provenance_path().read_text(encoding="utf-8"))
    del provenance["release"], provenance["metrics"]
    provenance["golden_embedding"] = f"{len(provenance['golden_embedding'])} numbers"
    provenance["patients"] = {dataset: f"{len(ids)} ids" for dataset, ids in provenance["patients"].items()}
    for key, value in (record | provenance).items():
        numbers = isinstance(value, list) and all(isinstance(one, int | float) for one in value)
        print(f"{key}: {json.dumps(value, ensure_ascii=False, indent=None if numbers else 2)}")


def figures(weights: "Weights") -> list[str]:
    """A release's figures with their 95 % intervals, a line each."""
    return [
        f"{name}: {figure['value']:.4f} ({figure['low']:.4f}–{figure['high']:.4f})"
        for name, figure in weights.metrics.items()
    ]


def verify(release: Positional[str]) -> None:
    """Check a release's bytes, and that this machine computes the features that its makers computed."""
    from . import verify

    result = verify.verify(release)
    print(
        f"{result.release}: sha256 {'as registered' if result.sha256_ok else 'WRONG'}, golden embedding off by at "
        f"most {result.max_difference:.1e}, cosine {result.cosine:.7f}: {'ok' if result.ok else 'NOT OK'}"
    )
    if not result.ok:
        sys.exit(1)


def embed(
    folder: Positional[Path], out: Path = Path("features.parquet"), model: str = "resnet18", device: str | None = None
) -> None:
    """Features of every radiograph in a folder, as Parquet; files that cannot be read are listed and left out."""
    from c2l_models.training.datasets import image_files

    from . import embedding

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
    from .release_folder import write_release_folder
    from .weights import resolve

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
    from . import get_weights, publish

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


COMMANDS: dict[str, Callable[..., Any]] = {
    "list": list_,
    "info": info,
    "verify": verify,
    "download": download,
    "publish": publish,
    "embed": embed,
    **commands.COMMANDS,
}

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
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
        if error.errno not in DISK_ERRORS:
            raise
        _fail(f"{error.filename or 'the disk'}: {error.strerror}; make room, then give the same command again")
    except KeyboardInterrupt:
        sys.exit(130)
