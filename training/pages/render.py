"""Render a page as one self-contained HTML file."""

import base64
import hashlib
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent


def render(template: Path, **values: object) -> bytes:
    """Render a template that extends `shell.html`. Every value is escaped.

    The page contains the style of the shell, then the .css and .js files that lie beside the template under its name.
    Its Content-Security-Policy allows this style and this script, by their hashes, and images in data URIs. A browser
    refuses every request and every other script.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters["breakable"] = breakable
    environment.tests["measured"] = lambda cell: hasattr(cell, "low")
    shell_style, own_style, script = (
        path.read_text(encoding="utf-8")
        for path in (FOLDER / "shell.css", template.with_suffix(".css"), template.with_suffix(".js"))
    )
    style = shell_style + own_style
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    shell: dict[str, Any] = {
        "policy": policy,
        "style": Markup(style),
        "script": Markup(script),
        "version": version("c2l-models"),
    }
    return environment.get_template(template.name).render(values | shell).encode()


def breakable(text: object) -> Markup:
    """A name, escaped, that a narrow column breaks after a dot, a slash or an underscore."""
    return Markup(re.sub(r"([._/])(?=\w)", r"\1<wbr>", str(escape(text))))


def data_uri(image: bytes, kind: str) -> str:
    """An image as an address that contains it. `kind`: "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
