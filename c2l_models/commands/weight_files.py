"""`c2l export`, `convert` and `publish`: weights → files for other programs and the hub.

Each command imports its modules when it runs, so that `c2l --help` answers at once.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..architectures import loading_call
from ..errors import C2LError
from ..files import check_file, check_folder
from ..optional_training import require_training
from ..progress import stage
from ..releases.training_data import NOT_RECORDED
from .releases import Release


def export(
    target: Annotated[Positional[str], arg(metavar="WEIGHTS", help="a run folder, a release, or a .safetensors file")],
    out: Path,
    format: Literal["safetensors", "onnx", "pt2"] | None = None,
    teacher: bool = False,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
    best: bool = False,
    device: str = "cpu",
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
        device: for a run: the torch device that computes batch norm's statistics, such as cuda.
    """
    from tempfile import TemporaryDirectory

    from ..publishing.export import FORMATS, export_weights, is_run_folder

    chosen = format or out.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise C2LError(f"expected --format, or --out with a name that ends in .{', .'.join(FORMATS)}; found {out}")
    check_file(out)
    is_run = is_run_folder(target)
    if is_run:
        require_training("exporting a run folder")
    elif teacher or best or (tag, size, license, device) != ("custom", None, "unknown", "cpu"):
        flags = "--teacher, --best, --tag, --size, --license and --device"
        raise C2LError(f"{flags} need a run folder, found {target}; leave them out")
    with stage("export", show=True), TemporaryDirectory() as folder:
        source: str | Path = target
        only_run = is_run and chosen == "safetensors"
        if is_run:
            from ..devices import find_device
            from ..training.run_files.backbone import export_run

            where = find_device(device)
            source = out if only_run else Path(folder) / "run.safetensors"
            export_run(Path(target), source, None, teacher or None, tag, size, license, best, where)
        done = None if only_run else export_weights(source, out, chosen)
    if done is None:
        print(out)
    else:
        print(
            f"{done.path}: features differ from the network's by at most {done.difference:.1e} of the largest feature"
        )


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
    trained_on: tuple[str, ...] = (f"{NOT_RECORDED} in the checkpoint",),
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
    check_file(out)
    with stage("convert", show=True):
        from ..publishing.convert import convert
        from ..releases.record import Weights

        means = (input_mean, input_std)
        done = convert(checkpoint, out, arch, network, mean, std, size, license, *means, trained_on, origin, patients)
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


def publish(release: Release, namespace: str, out: Path | None = None, dry_run: bool = False) -> None:
    """Upload a release to a Hugging Face repository, in timm's layout, with its model card.

    If the repository already holds the same files, nothing is uploaded.

    Args:
        release: a release's name.
        namespace: a user or organisation of the hub; the repository is NAMESPACE/RELEASE.
        out: folder for a local copy of the uploaded files; published/RELEASE by default.
        dry_run: write the local folder, and send no request to the hub.
    """
    if out:
        check_folder(out)
    with stage("publish", show=True):
        from .. import get_weights
        from ..publishing import publish

        weights = get_weights(release)
        repository = publish.repository_of(weights, namespace)
        files = publish.write_repository(weights, repository, out or Path("published") / weights.name)
        if not dry_run:
            with stage(f"uploading to {repository}"):
                done = publish.publish(weights, repository, files)
    if dry_run:
        print(f"dry run: these files would be uploaded to {repository}:")
        print(*(f"  {file}, {file.stat().st_size:,} bytes" for file in files), sep="\n")
        return
    sent = f"uploaded {', '.join(done.sent)}" if done.sent else "already up to date"
    print(f"{repository}: {sent}; commit {done.commit}")


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
