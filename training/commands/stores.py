"""`c2l prepare` and `join`: from radiographs on disk to an image store.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.errors import C2LError
from c2l_models.files import check_folder
from c2l_models.progress import stage
from c2l_models.ray_engine import check_address

if TYPE_CHECKING:
    from ..store.finished_store import PrepareReport

PRETRAINING_ONLY = (
    "NAME:PATTERN, images that pretraining may use and labelled tasks may not, by their paths in the data set's "
    "folder, such as 'chestxray14:images_002/*'; can be repeated"
)


def prepare(
    source: Annotated[UseAppendAction[tuple[str, ...]], arg(help="NAME=DIR, a data set's folder; can be repeated")],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    shard: str | None = None,
    pretraining_only: Annotated[UseAppendAction[tuple[str, ...]], arg(help=PRETRAINING_ONLY)] = (),
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> None:
    """Decode radiographs on disk into an image store: one uint8 array and one index.

    An interrupted call resumes if it is repeated. Data sets: chestxray14, chexpert, mimic_cxr, mura, rsna, knee_kl,
    fracatlas, shoulder_implants, and folder (any folder of images, with an optional labels.csv). A folder with a
    dataset.toml has the name that this file states; NAME can also be the path of a .toml file that describes DIR.

    Args:
        out: the store's folder; must not exist.
        size: side of the stored images, pixels.
        workers: number of decoding processes; by default one per core.
        shard: K/N: write part K of N. Several machines can each write one part; `c2l join` joins the parts. By
            default all is written.
        engine: local decodes on this machine; ray on a Ray cluster, one worker per core (extra [ray]).
        address: the Ray cluster, such as auto or HOST:6379; by default RAY_ADDRESS, a cluster that runs on this
            machine, or a new one with its cores.
    """
    check_folder(out)
    if engine == "ray" and (workers or shard):
        raise C2LError("--engine ray makes its own shards, one worker per core; leave out --workers and --shard")
    check_address(engine, address)
    with stage("prepare", show=True):
        pairs = []
        for pair in source:
            name, equals, folder = pair.partition("=")
            if not equals:
                raise C2LError(f"--source: expected NAME=DIR, such as chestxray14=data/chestxray14; found {pair}")
            pairs.append((name, Path(folder)))
        if engine == "ray":
            from ..store.ray_prepare import prepare_on_ray

            report = prepare_on_ray(pairs, out, size, pretraining_only, address)
        else:
            from ..store.prepare import prepare

            part = _shard(shard) if shard else None
            report = prepare(pairs, out, size, workers, shard=part, pretraining_only=pretraining_only)
    _print_report(report)


def join(
    shards: Annotated[Positional[tuple[Path, ...]], arg(metavar="SHARD …")],
    out: Path,
) -> None:
    """Join the shards that `c2l prepare --shard` wrote into one image store.

    The store holds the same bytes as a store that one machine wrote.

    Args:
        shards: the folders of all shards, in any order.
        out: the store's folder; must not exist.
    """
    check_folder(out)
    with stage("join", show=True):
        from ..store.shards import join_shards

        report = join_shards(shards, out)
    _print_report(report)


def _print_report(report: "PrepareReport") -> None:
    """Print the refused files and the counts, and the summary as the last line."""
    import json

    import pyarrow.parquet as pq
    from rich.console import Console

    from c2l_models.radiographs.listing import left_out_count, left_out_lines

    from ..datasets import corpus
    from ..store.store_format import REFUSED, REFUSED_CSV

    if report.refused:
        rows = pq.read_table(report.store / REFUSED).to_pylist()
        print(*left_out_lines([(row["path"], row["reason"]) for row in rows]), sep="\n")
        print(f"all files left out, with reasons: {report.store / REFUSED_CSV}")
    if not report.shard:
        counts = json.loads((report.store / "store.json").read_text(encoding="utf-8"))["counts"]
        if parts := corpus.compare_with_paper({tuple(part.split("/")): count for part, count in counts.items()}):
            Console().print(corpus.table(parts))
        index = pq.read_table(report.store / "index.parquet", columns=["patient", "dataset", "split"])
        for shared in corpus.shared_patients(index):
            patients = f"{shared.part} and {shared.other} share {shared.patients} patients"
            print(f"{patients}: {shared.images} images of {shared.part}")
        print(*_untested(report.store, counts), sep="\n", end="\n" * bool(counts))
    print(
        f"{report.images} images in {report.store} ({report.duplicates} are copies of earlier ones), "
        f"{report.seconds:.0f} s{left_out_count(report.refused)}"
    )


def _untested(store: Path, counts: dict[str, int]) -> list[str]:
    """A line for each labelled data set without a test part, such as a labels.csv without a column split."""
    from ..evaluation.tasks import load_tasks
    from ..store.image_store import ImageStore

    datasets = {part.split("/")[0] for part in counts}
    if all(f"{dataset}/test" in counts for dataset in datasets):
        return []
    images = ImageStore.open(store)
    return [
        f"{task.dataset} has labels, but no images in split {' or '.join(task.test)}, which `c2l probe` and `finetune` "
        "test on; to set it, add a column split to the table (train, val or test)"
        for task in load_tasks(images)
        if task.test and not any(f"{task.dataset}/{split}" in counts for split in task.test)
    ]


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise C2LError(f"--shard: expected K/N with 1 <= K <= N, such as 3/16; found {text}")
    return int(number), int(count)
