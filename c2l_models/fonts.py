"""Fonts for pictures: an installed font that has the characters of a text, if the usual one lacks some."""

import os
import re
import sys
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

FOLDERS = (
    *(Path(base).expanduser() for base in ("~/.fonts", "~/.local/share/fonts", "/usr/local/share/fonts")),
    *map(Path, ("/usr/share/fonts", "/Library/Fonts", "/System/Library/Fonts")),
    Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",
)
"""Where Linux, macOS and Windows keep fonts. The fonts bundled with matplotlib are searched too."""
SPECIAL = re.compile(r"bold|italic|oblique|mono|condensed|narrow|serif|light|thin|black|medium|math|cmex|cmsy", re.I)
SUFFIXES = {".ttf", ".otf", ".ttc"}
UNASSIGNED = "\uffff"
"""A character that no font has, so its glyph is the font's sign for missing characters."""


@lru_cache(64)
def usual_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, at a size in pixels; it has ASCII and little more."""
    return ImageFont.load_default(size)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The usual font if it has the characters of a text, otherwise an installed font, at a size in pixels."""
    usual = usual_font(size)
    if text.isascii() or not missing(text, usual):
        return usual
    file = installed_font(text)
    return ImageFont.truetype(file, size) if file else usual


def missing(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The printed characters of a text that a font lacks, each once."""
    box = _shape(font, UNASSIGNED)
    characters = dict.fromkeys(letter for letter in text if letter.isprintable() and not letter.isspace())
    return "".join(letter for letter in characters if _shape(font, letter) == box)


def lacks(file: Path, text: str) -> str:
    """The characters of a text that the font in a file lacks; all of them if the file cannot be read."""
    font = _opened(file)
    return missing(text, font) if font else text


@cache
def installed_font(text: str) -> Path | None:
    """The file of an installed font with all characters of a text; otherwise the one that lacks fewest, if any does.

    The first text that no font has completely is reported on stderr, with advice.
    """
    best, fewest = None, text
    for file in _installed():
        lacking = lacks(file, text)
        if len(lacking) < len(fewest):
            best, fewest = file, lacking
        if not lacking:
            return file
    _report_missing(fewest)
    return best


def _shape(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letter: str) -> tuple[object, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(1024)
def _opened(file: Path) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(file, 20)
    except (OSError, ValueError):  # a font of bitmaps in other sizes, or no font
        return None


@cache
def _installed() -> tuple[Path, ...]:
    """Files of fonts, upright sans-serif ones first; without Unicode's LastResort, whose letters are all boxes."""
    folders = list(FOLDERS)
    if (matplotlib := find_spec("matplotlib")) and matplotlib.origin:
        folders.append(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf")
    found = (file for folder in folders if folder.is_dir() for file in folder.rglob("*"))
    files = {file for file in found if file.suffix.lower() in SUFFIXES and "LastResort" not in file.name}

    def rank(file: Path) -> tuple[bool, bool, Path]:
        return bool(SPECIAL.search(file.stem)), "sans" not in file.stem.lower(), file

    return tuple(sorted(files, key=rank))


_reported: list[str] = []


def _report_missing(characters: str) -> None:
    if _reported:
        return
    _reported.append(characters)
    shown = "".join(characters.split())[:5]
    print(
        f"no installed font has {shown}: pictures show boxes in place of such characters; install a font that has "
        "them, such as Noto Sans or Noto Sans CJK",
        file=sys.stderr,
    )
