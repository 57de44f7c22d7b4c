"""Files and folders on a command line: unique names that can be opened, in the order of the arguments."""

import os
from pathlib import Path

import pytest

from c2l_models.errors import C2LError
from c2l_models.radiographs.inputs import find_images


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Two folders with a film of the same name, and a file whose name says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/deep/2.png", "b/1.png", "b/notes.txt", "film"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize(
    ("arguments", "images"),
    [
        (["a"], ["a/1.png", "a/deep/2.png"]),  # as ever
        (["b", "a"], ["b/1.png", "a/1.png", "a/deep/2.png"]),
        (["film", "b"], ["film", "b/1.png"]),  # a file is taken whatever its name
        (["a", "a/1.png", "./a", "b/../a/1.png", "a/deep"], ["a/1.png", "a/deep/2.png"]),  # each once
        (["a/deep", "a"], ["a/deep/2.png", "a/1.png"]),
    ],
)
def test_images(arguments, images):
    found = find_images([Path(name) for name in arguments])
    assert [str(path) for path in found.images] == images
    assert all(path.exists() for path in found.images)


def test_absolute_and_relative_names(tmp_path):
    found = find_images([tmp_path / "a" / "1.png", Path("a")])
    assert [str(path) for path in found.images] == [f"{tmp_path}/a/1.png", "a/deep/2.png"]


def test_files_that_are_left_out():
    one, both = find_images([Path("b")]), find_images([Path("a"), Path("b")])
    assert one.left_out == [("notes.txt", "not an image by its name (.txt)")]
    assert both.left_out == [("b/notes.txt", "not an image by its name (.txt)")]


@pytest.mark.parametrize(
    ("argument", "message"),
    [("c", "found nothing at c"), ("link", "found something else at link"), ("empty", "files in empty, found none")],
)
def test_refused(argument, message):
    Path("empty").mkdir()
    Path("link").symlink_to("absent")
    with pytest.raises(C2LError, match=message):
        find_images([Path(argument)])


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in the file system")
def test_a_pipe_is_not_waited_for():
    os.mkfifo("pipe")
    with pytest.raises(C2LError, match="found something else at pipe"):
        find_images([Path("pipe")])
