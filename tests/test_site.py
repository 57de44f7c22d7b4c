"""The documentation site: it builds strictly, and its pages need no other server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=repository, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_of_docs_is_in_the_navigation(repository: Path, site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in (repository / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in home or page.stem == "index", page


def test_links_of_each_page_lead_to_files_of_the_site(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 10
    for page in pages:
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if ":" not in link and page.name != "404.html":  # which a server shows at any address
                assert (page.parent / link).exists(), f"{page.relative_to(site)}: {link}"


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=\"(https?:[^\"]+)", page.read_text(encoding="utf-8")
        )
        assert not loaded, f"{page.relative_to(site)}: {loaded}"


def test_a_broken_link_stops_the_build(repository: Path, tmp_path: Path) -> None:
    """The oracle of the first fixture: the strict build does fail."""
    copy = tmp_path / "copy"
    (copy / "docs").mkdir(parents=True)
    settings = "site_name: x\nhooks: [docs/site_links.py]\nexclude_docs: site_links.py\n"
    (copy / "mkdocs.yml").write_text(settings, encoding="utf-8")
    (copy / "docs" / "site_links.py").write_bytes((repository / "docs" / "site_links.py").read_bytes())
    (copy / "docs" / "index.md").write_text("[gone](../results/gone.md)", encoding="utf-8")
    for name in ("MODEL_CARD.md", "CHANGELOG.md"):
        (copy / name).write_text("# Title", encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=copy, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    assert "results/gone.md" in done.stderr
