"""Text in and out: output in every encoding and to a closed pipe; files in UTF-8 whatever the locale."""

import ast
import io
import os
import subprocess
import sys

import pytest

from c2l_models import streams
from c2l_models.radiographs.phantom import write_films

CALL = [sys.executable, "-c", "from c2l_models.cli import main; main()"]
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def c2l(*arguments, **environment):
    return subprocess.run([*CALL, *map(str, arguments)], capture_output=True, env=os.environ | environment)


EACH = """
import sys
from c2l_models.cli import main
for line in sys.argv[1:]:
    print(line)
    try:
        main(line.split())
    except SystemExit as end:
        assert not end.code, line
"""
"""Run several command lines in one process."""


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "cp437", "latin-1", "ascii", "utf-8"])
def test_all_help_in_every_encoding(encoding):
    lines = ["--help", "list", "pretrain --help", "finetune --help", "reproduce --help"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", EACH, *lines], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode(encoding)
    shown = done.stdout.decode(encoding)
    assert [line for line in shown.splitlines() if line in lines] == lines
    assert "\\u" not in shown  # our own signs have readable forms


def test_characters_that_the_encoding_lacks(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252"))
    streams.make_printable()
    print("Müller … ≥ 1 × 2 → 中 r\udcf6ntgen", end="", flush=True)
    # cp1252 has ü, … and ×; the byte F6 of a file name is shown by its number
    assert written.getvalue() == "Müller … >= 1 × 2 -> \\u4e2d r\\xf6ntgen".encode("cp1252")


@pytest.mark.skipif(os.name == "nt", reason="no pipes of a shell")
def test_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run([*CALL, "list"], stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


def test_names_and_labels_in_an_ascii_locale(tmp_path):
    films = write_films(tmp_path / "films", 1)
    next(films.glob("*.png")).rename(films / "größe.png")
    (films / "labels.csv").write_text("\ufeffpath,patient,Ergüsse\ngröße.png,ä,1\n", encoding="utf-8")
    (films / "dataset.toml").write_text('\ufeffname = "röntgen"\n', encoding="utf-8")
    done = c2l("prepare", "--source", f"folder={films}", "--out", tmp_path / "store", **ASCII_LOCALE)
    assert done.returncode == 2
    assert b"dataset.toml" in done.stderr  # named: only the name's letters are wrong
    (films / "dataset.toml").unlink()
    done = c2l("prepare", "--source", f"folder={films}", "--out", tmp_path / "store", **ASCII_LOCALE)
    assert done.returncode == 0, done.stderr.decode()
    from c2l_models.training.store.image_store import ImageStore

    store = ImageStore.open(tmp_path / "store")
    assert store.index["path"].to_pylist() == ["größe.png"]
    assert [dict(labels) for labels in store.index["labels"].to_pylist()] == [{"Ergüsse": 1.0}]


def test_every_text_file_names_its_encoding(repository):
    """ruff's PLW1514 sees only the calls on a path whose type it can infer."""
    found = []
    for file in [*repository.glob("c2l_models/**/*.py"), *repository.glob("training/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            named = {keyword.arg for keyword in node.keywords}
            modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            text = node.func.attr in ("read_text", "write_text")
            text |= node.func.attr == "open" and any(set(str(mode)) <= set("rwat+x") for mode in modes)
            text |= node.func.attr == "run" and "text" in named
            if text and "encoding" not in named:
                found.append(f"{file}:{node.lineno}")
    assert not found
