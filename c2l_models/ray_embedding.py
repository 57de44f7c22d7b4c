"""`c2l embed --engine ray`: each task writes the features of one part of the images, and the parts are joined."""

import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .embedding import BATCH_SIZE, READERS, Embeddings, EmbedStopped, embed, resolve_model
from .errors import C2LError, MachineError
from .feature_files import join_features
from .progress import stage
from .ray_engine import live_nodes, plan_worker, ray_cluster, remove_parts, run_parts
from .readouts import Readout, feature_width
from .resumed_embedding import AfterBatch, Embedded, check_kept, check_some_read, keep, resume

PART_IMAGES = 4096
"""Images per part: whole batches of `embed`, so each batch holds the images that it holds on one machine."""
PROCESS_BYTES = 10**9  # Python, torch and a network: 0.82 GB measured
PIXEL_BYTES = 640  # per pixel of a batch: 212 measured for ResNet-18, 611 for DenseNet-121
READER_BYTES = 2 * 10**8  # a film that is read: 0.15 GB measured for 15 million pixels of 16 bits


class Part(NamedTuple):
    """The work of one task; `folder`: start of relative paths; None if all paths are absolute."""

    images: Sequence[Path]
    file: Path
    folder: Path | None
    model: str
    sha256: str
    features: Readout
    device: str
    readers: int

    def __str__(self) -> str:
        return f"{self.images[0]} to {self.images[-1]}"


def parts_of(out: Path) -> Path:
    """The folder that keeps the finished parts of an interrupted call."""
    return out.with_name(f"{out.stem}.parts")


def embed_on_ray(
    images: Sequence[Path],
    out: Path,
    model: str = "resnet18",
    device: str | None = None,
    features: Readout = "pooled",
    address: str | None = None,
) -> Embedded:
    """Embed images on a Ray cluster and write `out`, in the format of its suffix.

    The rows are those of `embed_to_file`, in the same order. On the same processor and with one thread they are equal
    to the bit. Every node must see the images and the folder of `out` under the same paths.

    Each part is written to `parts_of(out)` when it is finished. The next call uses finished parts by the rules
    of `embed_to_file` for kept rows.

    Raises:
        C2LError: as `embed_to_file`; Ray is not installed or not reached; a worker lacks memory, the folders, or these
            weights; or workers died repeatedly on a part.
        MachineError: a worker cannot read an image because of its machine; the finished parts are kept.
    """
    network, transform, source = resolve_model(model)
    memory = PROCESS_BYTES + BATCH_SIZE * PIXEL_BYTES * transform.size**2
    names = [*images, Path(model)] if Path(model).exists() else images
    with ray_cluster(address) as ray:
        worker = plan_worker(live_nodes(ray), memory, device, READER_BYTES)
        folder = parts_of(out)
        folder.mkdir(exist_ok=True)
        check_kept(sorted(folder.glob("*.parquet")), images)
        make = partial(
            Part,
            folder=None if all(name.is_absolute() for name in names) else Path.cwd(),
            model=model,
            sha256=source["sha256"],
            features=features,
            device="cuda" if worker.gpus else "cpu",
            readers=min(max(worker.cpus, 1), READERS),
        )
        parts = [make(part, file.absolute()) for part, file in cut(images, folder)]
        found: dict[int, tuple[int, dict[Path, str]]] = {}
        with stage("embedding", len(images), "films") as line:
            for number, result in run_parts(ray, embed_part, parts, worker):
                found[number] = result
                line.advance(len(parts[number].images))
    errors = {path: reason for number in sorted(found) for path, reason in found[number][1].items()}
    count = sum(films for films, _ in found.values())
    check_some_read(count, errors)
    join_features([part.file for part in parts], out)
    remove_parts(folder)
    return Embedded(count, feature_width(network, features), errors)


def cut(images: Sequence[Path], folder: Path) -> list[tuple[Sequence[Path], Path]]:
    """The images in parts of `PART_IMAGES`, whatever the cluster, and the file of each part.

    The name of a file does not say how many parts there are, so that finished parts are found if images were added.
    """
    starts = range(0, len(images), PART_IMAGES)
    return [
        (images[start : start + PART_IMAGES], folder / f"{number:06}.parquet") for number, start in enumerate(starts, 1)
    ]


def embed_part(part: Part, again: bool) -> tuple[int, dict[Path, str]]:
    """Write the file of one part. Returns the number of its rows, and the images that could not be read.

    Raises C2LError if this machine has other weights of this name, or does not have a folder, and MachineError if it
    cannot read an image; then the part keeps the rows so far.
    """
    if part.folder:
        try:
            os.chdir(part.folder)  # the process is a worker of this call
        except OSError as error:
            raise _not_shared(part.folder, error.strerror or str(error)) from None

    def compute(paths: Sequence[Path], after_batch: AfterBatch) -> Embeddings:
        return embed(
            paths,
            part.model,
            device=part.device,
            features=part.features,
            readers=part.readers,
            after_batch=after_batch,
        )

    try:
        found, stamps = resume(part.images, part.file, compute)
    except EmbedStopped as stop:
        raise MachineError(
            f"{socket.gethostname()}: {stop}. The finished parts are kept; correct the cause, or move the file away, "
            "then repeat the command to resume"
        ) from None
    if found.sha256 != part.sha256:
        raise C2LError(
            f"{socket.gethostname()}: expected weights {part.model} with sha256 {part.sha256}, found "
            f"{found.sha256}; install the same release on all nodes"
        )
    for path in found.errors:
        if not path.parent.is_dir():
            raise _not_shared(path.parent, "no such folder")
    keep(found, stamps, part.file)
    return len(found.paths), found.errors


def _not_shared(folder: Path, reason: str) -> C2LError:
    return C2LError(
        f"{socket.gethostname()}: expected the folder {folder}, which all nodes must see under this path, found: "
        f"{reason}; mount it there. The finished parts are kept, and the same command resumes"
    )
