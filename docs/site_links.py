"""Links of the documentation site: a page's relative links work on the site as they do in the repository.

A file outside docs/ that a page links to (a result, a recipe, the model card) becomes part of the site, at its path in
the repository. MkDocs calls the functions.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")
"""A Markdown link to a file: text, path and anchor. Addresses with a scheme have a colon."""
NOTEBOOK_LINK = re.compile(r'href="([^":]+)\.md(#[^"]*)?"')
DOCS = "docs"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to, and those that the added pages link to."""
    root = Path(config.config_file_path).parent
    pages = [(posixpath.join(DOCS, file.src_uri), file.content_string) for file in files.documentation_pages()]
    pages += [(name, (root / name).read_text(encoding="utf-8")) for name in ("MODEL_CARD.md", "CHANGELOG.md")]
    for path, text in pages:  # grows while it is read
        if not path.startswith(f"{DOCS}/") and files.get_file_from_path(path) is None:
            files.append(File.generated(config, path, content=text))
        for _, link, _ in LINK.findall(text):
            target = in_repository(path, link)
            if target.startswith(("../", f"{DOCS}/")) or not (root / target).is_file():
                continue
            if target.endswith(".md"):
                if target not in {known for known, _ in pages}:
                    pages.append((target, (root / target).read_text(encoding="utf-8")))
            elif files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(root / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Rewrite a page's links from the repository's folders to the site's, and link each picture to its file.

    A link to a folder becomes its text.
    """
    own = page.file.src_uri
    path = own if page.file.generated_by else posixpath.join(DOCS, own)
    root = Path(config.config_file_path).parent

    def on_site(match: re.Match[str]) -> str:
        text, link, anchor = match.group(1), match.group(2), match.group(3) or ""
        target = in_repository(path, link)
        if (root / target).is_dir():
            return text.strip("[]")
        site_path = target.removeprefix(f"{DOCS}/")
        moved = posixpath.relpath(site_path, posixpath.dirname(own) or ".")
        # A picture links to its file, because a phone shows it too small to read.
        return f"[{text}({moved})]({moved})" if text.startswith("!") else f"{text}({moved}{anchor})"

    return LINK.sub(on_site, markdown)


def on_page_content(html: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Let a notebook's links lead to the built pages, which MkDocs does for Markdown alone."""
    return NOTEBOOK_LINK.sub(r'href="\1.html\2"', html) if page.file.src_uri.endswith(".ipynb") else html


def in_repository(page: str, link: str) -> str:
    """The path in the repository of a link on a page, which is a path in the repository too."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
