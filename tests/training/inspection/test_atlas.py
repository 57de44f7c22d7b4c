"""`c2l atlas`: what the page contains, compared with scikit-learn; and the page in a browser, if one is installed."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, browser
from sklearn.neighbors import NearestNeighbors

from c2l_models.cli import main
from c2l_models.embedding import Embeddings
from c2l_models.errors import C2LError
from c2l_models.radiographs.phantom import write_films
from c2l_models.training.inspection.atlas import write_atlas


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Two groups of six films in 16 dimensions, and one film far from both."""
    monkeypatch.chdir(tmp_path)
    write_films("films", 13)
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(16)[:3], (6, 6, 1), axis=0)
    films = sorted(Path("films").glob("*.png"))
    return Embeddings((centres + 0.05 * rng.normal(size=(13, 16))).astype(np.float32), films, model="model")


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_has_the_neighbours_and_the_outlier(table, tmp_path):
    write_atlas(table, tmp_path / "atlas.html")
    data = data_of((tmp_path / "atlas.html").read_text(encoding="utf-8"))
    oracle = NearestNeighbors(n_neighbors=9, metric="cosine").fit(table.features)
    distances, indices = oracle.kneighbors(table.features)
    assert data["neighbours"] == indices[:, 1:].tolist()
    np.testing.assert_allclose(data["cosines"], 1 - distances[:, 1:], atol=6e-4)
    assert data["outliers"][0] == 12
    assert data["rank"][12] == pytest.approx(12 / 13, abs=1e-3)
    places = np.array([data["x"], data["y"]]).T
    assert np.abs(places).max() == pytest.approx(1, abs=1e-3)
    groups = [places[:6].mean(axis=0), places[6:12].mean(axis=0)]
    nearer = [int(np.argmin([np.linalg.norm(place - centre) for centre in groups])) for place in places[:12]]
    assert nearer == [0] * 6 + [1] * 6


def test_labels_are_matched_by_path_and_patients_left_out(table, tmp_path):
    names = [film.name for film in table.paths]
    lines = ["path; Patient;finding", *(f"{name};secret;</script>{i % 2}" for i, name in enumerate(names[:-1]))]
    Path("films/mine.csv").write_text("\n".join(lines), encoding="utf-8")
    write_atlas(table, tmp_path / "atlas.html", Path("films/mine.csv"))
    page = (tmp_path / "atlas.html").read_text(encoding="utf-8")
    assert "secret" not in page
    assert data_of(page)["labels"] == {"finding": [f"</script>{i % 2}" for i in range(12)] + [""]}
    Path("films/other.csv").write_text("path,finding\nx.png,1\n", encoding="utf-8")
    with pytest.raises(C2LError, match=r"other\.csv lists none of the 13 films"):
        write_atlas(table, tmp_path / "other.html", Path("films/other.csv"))


def test_labels_are_matched_whatever_path_names_a_film(table, tmp_path):
    """By a path with `..` of a film that is gone, by a link to the folder, and by a link to the film."""
    (tmp_path / "linked").symlink_to("films", target_is_directory=True)
    (tmp_path / "one.png").symlink_to(table.paths[2])
    table.paths[0].unlink()
    films = [Path("films/../linked/..") / film if i in (4, 5) else film for i, film in enumerate(table.paths)]
    names = ["films/../films/", "linked/", "", "", "", "linked/../films/"]
    lines = [f"{names[i]}{film.name},{i}" for i, film in enumerate(table.paths[:6])]
    lines[2:5] = ["one.png,2", f"{table.paths[3].absolute()},3", f"films/{table.paths[4].name},4"]
    Path("labels.csv").write_text("\n".join(["path,number", *lines]), encoding="utf-8")
    write_atlas(Embeddings(table.features, films), tmp_path / "atlas.html", Path("labels.csv"))
    data = data_of((tmp_path / "atlas.html").read_text(encoding="utf-8"))
    assert data["labels"] == {"number": ["0", "1", "2", "3", "4", "5", *[""] * 7]}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("first", "different"), [(1, 0), (1, 1), (0, 0)])
def test_equal_films(tmp_path, first, different):
    """A page without NaN; none of the equal films is an outlier; if all are equal, each has its own place.

    t-SNE of 64 zero vectors ends the process with a segmentation fault.
    """
    rng = np.random.default_rng(0)
    features = np.repeat(first * rng.normal(size=(1, 333)), 64, axis=0).astype(np.float32)
    features *= rng.uniform(1, 2, size=(64, 1)).astype(np.float32)  # rounds otherwise in each row
    features[64 - different :] = rng.normal(size=333)
    page = tmp_path / "atlas.html"
    write_atlas(Embeddings(features, [Path("film.png")] * 64), page)
    data = data_of(page.read_text(encoding="utf-8"))
    assert np.isfinite([data["x"], data["y"]]).all()
    assert np.abs([data["x"], data["y"]]).max() == pytest.approx(1)
    assert data["cosines"][:63] == [[first] * 8] * 63
    assert data["rank"][:63] == [0] * 63
    if different:
        assert data["outliers"][0] == 63
    else:
        assert len(set(zip(data["x"], data["y"], strict=True))) == 64


def test_names_with_any_characters(table, tmp_path):
    """Bytes that are not UTF-8 are escaped, of the model's file too; no name ends the script or becomes HTML."""
    names = [os.fsdecode(b"films/\xf6.png"), "films/</script><img src=x onerror=alert(1)>&amp;'\".png", "films/胸.png"]
    page = tmp_path / "atlas.html"
    write_atlas(Embeddings(table.features[:3], [Path(name) for name in names], model=names[0]), page)
    text = page.read_text(encoding="utf-8")
    data = data_of(text)
    assert data["names"] == ["films/\\xf6.png", *names[1:]]
    assert data["about"].startswith("Features of films/\\xf6.png;")
    assert text.count("</script>") == 2
    assert "<img src=x" not in text


def test_thumbnails_only_if_asked(table, tmp_path):
    table.paths[3].write_bytes(b"text")
    assert write_atlas(table, tmp_path / "plain.html") == {}
    assert "data:image" not in (tmp_path / "plain.html").read_text(encoding="utf-8")
    failed = write_atlas(table, tmp_path / "films.html", thumbnails=True)
    assert list(failed) == [table.paths[3]]
    images = data_of((tmp_path / "films.html").read_text(encoding="utf-8"))["thumbnails"]
    assert [image.startswith("data:image/jpeg;base64,") for image in images] == [i != 3 for i in range(13)]


def test_the_command(table, tmp_path, capsys):
    table.save(tmp_path / "features.parquet")
    main(["atlas", "features.parquet", "--out", "atlas.html", "--labels", "films/labels.csv"])
    assert capsys.readouterr().out == "13 films: atlas.html\n"
    with pytest.raises(SystemExit):
        main(["atlas", "features.parquet", "--out", "atlas.png"])
    assert "expected an .html file as --out, found atlas.png" in capsys.readouterr().err


def test_two_films_have_no_map(table, tmp_path):
    with pytest.raises(C2LError, match="expected 3 to 50,000 films, found 2"):
        write_atlas(Embeddings(table.features[:2], table.paths[:2]), tmp_path / "atlas.html")


def test_one_feature_per_film_has_no_map(table, tmp_path):
    with pytest.raises(C2LError, match="expected two or more features per film, found 1"):
        write_atlas(Embeddings(table.features[:, :1], table.paths), tmp_path / "atlas.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_works_in_a_browser(table, tmp_path):
    """By keyboard and by name; without a request or a message; no wider than the window."""
    write_atlas(table, tmp_path / "atlas.html", Path("films/labels.csv"), thumbnails=True)
    page = (tmp_path / "atlas.html").absolute()
    with browser(tmp_path / "profile") as tab:
        for width in (1280, 390):
            tab.open(page, width)
            tab.evaluate("canvas.focus()")
            tab.press("ArrowRight", 39)
            assert tab.evaluate("chosen") == 0
            for key, code in (("ArrowRight", 39), ("ArrowLeft", 37), ("+", 187), ("Home", 36)):
                tab.press(key, code)
            assert tab.evaluate("view.scale") == 1
            tab.evaluate("$('find').value = data.names[12]; $('find').dispatchEvent(new Event('input'))")
            assert tab.evaluate("chosen") == 12
            assert tab.evaluate("nearestTo(...onScreen(5))") in range(13)
            assert tab.evaluate("$('name').textContent") == str(table.paths[12])
            assert tab.evaluate("$('neighbours').children.length") == 8
            assert tab.evaluate("$('legend').children.length") >= 1
            assert tab.evaluate("$('image').hidden") is False
            assert tab.evaluate("$('image').naturalWidth") == 96
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.console == []
            assert [address for address in tab.requests if not address.startswith("data:")] == [page.as_uri()]
