"""Files written beside and renamed; leftovers of killed processes; checks of --out before work begins."""

import ast
import os
import re
import socket
import subprocess
import sys

import pytest
from nobody import folder_of_nobody

from c2l_models.errors import C2LError
from c2l_models.files import atomic_file, check_file, check_folder, temporary_beside, write_atomically


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_are_removed_and_others_stay(tmp_path, dead):
    host = socket.gethostname()
    gone = [f".a.json.{host}-{dead}.part", f".a.json.{dead}.part", f".a.json.{host}-{dead}.old"]
    kept = [f".a.json.{host}-{os.getppid()}.part", f".a.json.elsewhere-{dead}.part", f".b.json.{host}-{dead}.part"]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"half")
    write_atomically(tmp_path / "a.json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.json"])


def test_a_link_keeps_pointing_to_its_file(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "a")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_keeps_its_mode(tmp_path, mode):
    file = tmp_path / "a"
    file.touch()
    file.chmod(mode)
    with atomic_file(file) as new:
        (temporary,) = tmp_path.glob(".a.*")
        assert temporary.stat().st_mode & 0o777 == mode  # from the first byte on
        new.write(b"new")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", mode)


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(tmp_path / "none" / "a", b"")
    assert error.value.filename == str(tmp_path / "none" / "a")


def test_temporary_names_differ_between_ends(tmp_path):
    assert temporary_beside(tmp_path / "a") != temporary_beside(tmp_path / "a", "old")


def test_check_file(tmp_path):
    check_file(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    with pytest.raises(C2LError, match="found a folder"):
        check_file(tmp_path)
    with pytest.raises(C2LError, match="is no folder"):
        check_file(tmp_path / "none" / "a")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(C2LError, match="special"):
        check_file(tmp_path / "pipe")


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_the_folder_that_a_link_points_to_is_checked(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone" / "a")
    with pytest.raises(C2LError, match="gone is no folder"):
        check_file(link)
    (tmp_path / "gone").mkdir()
    check_file(link)
    write_atomically(link, b"new")
    assert (tmp_path / "gone" / "a").read_bytes() == b"new"


def test_check_folder(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(C2LError, match=f"expected a folder, found the file {tmp_path / 'file'}"):
            check_folder(folder)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_read_only_places_are_refused():
    with folder_of_nobody() as folder:
        (folder / "a").write_bytes(b"old")
        (folder / "a").chmod(0o444)
        (folder / "b").mkdir()
        (folder / "b").chmod(0o555)
        with pytest.raises(C2LError, match="read-only"):
            check_file(folder / "a")
        with pytest.raises(C2LError, match="Permission denied"):
            check_file(folder / "b" / "c")
        with pytest.raises(C2LError, match="Permission denied"):
            check_folder(folder / "b")


WRITERS = {
    *("write_text", "write_bytes", "tofile", "savefig", "print_png", "imwrite", "to_csv", "to_parquet", "save_file"),
    *("write_table", "write_csv", "save", "savez", "savez_compressed", "copy2", "copyfile", "copytree", "copyfileobj"),
    *("open", "fdopen", "NamedTemporaryFile", "mkstemp", "SummaryWriter"),
}
"""Functions and methods that can write a file."""
WRITE_DIRECTLY = {
    "c2l_models/files.py": "the one place",
    "c2l_models/radiographs/phantom/__init__.py": "writes to a folder beside, then renames its files",
    "training/benchmark/input_images.py": "writes to the benchmark's temporary folder",
    "training/datasets/pseudonym.py": "links the complete key, so that the first of several processes wins",
    "training/run_files/log.py": "appends lines; a torn last line is dropped",
    "training/run_files/run_lock.py": "a lock",
    "training/store/build_folder.py": "a lock",
    "training/store/crash_safe_array.py": "checksums of each part, in a folder that is renamed when it is complete",
    "training/store/shards.py": "writes to a folder that is renamed when it is complete",
    "training/store/store_format.py": "writes to a folder that is renamed when it is complete",
}
"""Modules that write files without `write_atomically`, and why."""
OWN = re.compile(
    r"((self\.)?(checkpoint|kept|found|run|self|result|predict\w+|metrics)\.|safetensors\.torch\.|)save|write_table"
)
"""Methods of this project's objects, which call `write_atomically`, and functions that return bytes."""


def direct_writes(source):
    """The calls in a module's source that write a file, and not to memory."""
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(function.func)
        arguments = [ast.unparse(argument) for argument in function.args]
        if name.split(".")[-1] not in WRITERS or OWN.fullmatch(name):
            continue
        if name.split(".")[-1] in ("open", "fdopen"):
            modes = [*function.args, *(keyword.value for keyword in function.keywords if keyword.arg == "mode")]
            texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
            if not any(re.fullmatch(r"[rwaxbt+]{1,3}", text) and set(text) & set("wax+") for text in texts):
                continue
        if not any(f"{argument} = io.BytesIO()" in source for argument in arguments):
            yield ast.unparse(function)


def test_every_output_is_written_beside_and_renamed(repository):
    found = {}
    for half in ("c2l_models", "training"):
        for file in (repository / half).rglob("*.py"):
            path = file.relative_to(repository)
            if path.parts[:2] != ("c2l_models", "training") and (calls := [*direct_writes(file.read_text("utf-8"))]):
                found[path.as_posix()] = calls
    assert {path: calls for path, calls in found.items() if path not in WRITE_DIRECTLY} == {}
    assert WRITE_DIRECTLY.keys() == found.keys()
