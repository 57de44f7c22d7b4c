"""Fonts for pictures: coverage against the font's own table of characters; a missing one is said once."""

from pathlib import Path
from unicodedata import combining

import numpy as np
import pytest
from PIL import Image, ImageFont

from c2l_models import fonts
from c2l_models.sheets import contact_sheet

matplotlib = pytest.importorskip("matplotlib")  # its DejaVu fonts
fonttools = pytest.importorskip("fontTools.ttLib")
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
TEXT = "Erguß ö Ł α п ع 肺炎 ½ €"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(fonts, "_reported", [])
    fonts.installed_font.cache_clear()


def characters_of(file):
    return set(map(chr, fonttools.TTFont(file, fontNumber=0).getBestCmap()))


def test_missing_characters_are_those_that_the_font_does_not_list():
    has = characters_of(DEJAVU)
    assert fonts.lacks(DEJAVU, TEXT) == "".join(c for c in TEXT if c not in has) == "肺炎"
    letters = "".join(chr(c) for c in range(0xA1, 0x600) if not combining(chr(c)))  # marks are drawn on a circle
    expected = {c for c in letters if c.isprintable() and not c.isspace() and c not in has}
    assert set(fonts.lacks(DEJAVU, letters)) == expected
    assert fonts.lacks(Path("no font"), TEXT) == TEXT


def test_a_font_is_found_that_has_all_characters(capsys):
    found = fonts.installed_font("Ergüsse ع")
    assert found
    assert set("Ergüsse ع") <= characters_of(found)
    assert not fonts.SPECIAL.search(found.stem)  # upright and sans-serif
    assert fonts.font_for("plain", 15) is fonts.usual_font(15)
    assert isinstance(fonts.font_for("ö", 15), ImageFont.FreeTypeFont)
    assert not fonts.missing("ö", fonts.font_for("ö", 15))
    assert capsys.readouterr().err == ""


def test_a_character_that_no_font_has_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_installed", lambda: (DEJAVU.with_name("cmr10.ttf"), DEJAVU))
    assert fonts.installed_font("ö 肺") == DEJAVU  # the font that lacks fewest
    assert fonts.installed_font("ä 炎") == DEJAVU
    message = capsys.readouterr().err
    assert message.startswith("no installed font has 肺: pictures show boxes")
    assert message.count("\n") == 1


def test_boxes_for_every_character_are_no_font():
    assert not any("LastResort" in file.name for file in fonts._installed())


def test_no_fonts_at_all(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    assert fonts.installed_font("ö ع") is None
    assert fonts.font_for("ö ع", 15) is fonts.usual_font(15)
    fonts.installed_font("肺")
    message = capsys.readouterr().err
    assert message.startswith("no installed font has öع: pictures show boxes")
    assert message.count("\n") == 1


def test_captions_of_a_sheet_have_their_own_letters(tmp_path):
    """The caption's pixels are those of a font with the letters, not the box for missing ones."""
    film = Image.new("L", (32, 32))
    for name, caption in (("a", "öööö"), ("b", "ßßßß"), ("c", "öööö")):
        contact_sheet([[film]], [[caption]], tmp_path / f"{name}.png")
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert not np.array_equal(a, b)  # two missing letters would look the same
    np.testing.assert_array_equal(a, c)
