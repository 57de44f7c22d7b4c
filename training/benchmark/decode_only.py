"""Decode images and do nothing else, in as many processes as `c2l prepare` uses; they import only Pillow."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

CHUNK = 32  # files per task


def decode_all(paths: Sequence[Path], workers: int) -> None:
    """Decode every file at full size to mode "L" with Pillow."""
    if workers == 1:
        for path in paths:
            _decode(path)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(_decode, paths, chunksize=CHUNK):
            pass


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        if image.mode != "L":
            image.convert("L")
