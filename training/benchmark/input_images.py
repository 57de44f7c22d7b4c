"""Image files for the benchmarks: the user's or synthetic images, converted and linked as often as necessary."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.radiographs.phantom import films

SUFFIXES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg")}
JPEG_QUALITY = 90
SYNTHETIC_COUNT, SYNTHETIC_SIDE = 16, 1024


def synthetic_images(folder: Path) -> Path:
    """Create a folder of synthetic radiographs as PNG files."""
    folder.mkdir()
    for number, film in enumerate(films(SYNTHETIC_COUNT, seed=0, size=SYNTHETIC_SIDE)):
        Image.fromarray(film.pixels).save(folder / f"{number}.png")
    return folder


def find_images(folder: Path) -> list[Path]:
    """The PNG and JPEG files under a folder. Raises DatasetError if there are none."""
    suffixes = {suffix for group in SUFFIXES.values() for suffix in group}
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not found:
        raise DatasetError(f"{folder}: expected PNG or JPEG files, found none; give a folder of radiographs")
    return found


def images_by_kind(images: Path, folder: Path) -> dict[str, list[Path]]:
    """Image files by kind. If the folder `images` has none of a kind, the other files are converted, in `folder`."""
    paths = find_images(images)
    found = {kind: [path for path in paths if path.suffix.lower() in SUFFIXES[kind]] for kind in SUFFIXES}
    png, jpeg = found["PNG"], found["JPEG"]
    return {
        "PNG": png or convert("PNG", jpeg, folder / "PNG"),
        "JPEG": jpeg or convert("JPEG", png, folder / "JPEG"),
    }


def convert(kind: str, paths: Sequence[Path], folder: Path) -> list[Path]:
    """Save images as 8-bit grey files of another kind."""
    folder.mkdir()
    saved = [folder / f"{number}{SUFFIXES[kind][0]}" for number in range(len(paths))]
    for source, target in zip(paths, saved, strict=True):
        with Image.open(source) as image:
            image.convert("L").save(target, kind, quality=JPEG_QUALITY)  # PNG ignores the quality
    return saved


def link_files(paths: Sequence[Path], count: int, folder: Path) -> Path:
    """Create a folder of `count` links to these files. If there are fewer files, they are repeated in order."""
    folder.mkdir()
    for number, path in enumerate(islice(cycle(paths), count)):
        (folder / f"{number:06}{path.suffix}").symlink_to(path.resolve())
    return folder


def source_name(images: Path | None) -> str:
    """Name of the images in a result: the last two parts of the folder's path, to reveal little about the machine."""
    return "synthetic images" if images is None else str(Path(*images.resolve().parts[-2:]))
