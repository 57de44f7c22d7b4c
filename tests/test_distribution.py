"""The two distributions: the wheel, and the zip of the repository that torch.hub downloads."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

BUILD = """
import sys
from setuptools.build_meta import build_sdist, build_wheel
folder = sys.argv[1]  # which setuptools changes
build_sdist(folder)
build_wheel(folder)
"""

# Hides the installed package, and blocks imports that only training and the command line need.
HUB = """
import sys

root, home = sys.argv[1:]
sys.modules |= dict.fromkeys(("tyro", "rich", "pyarrow", "sklearn", "matplotlib", "tensorboard", "pydicom"))
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
import torch
model = torch.hub.load(root, "resnet18", source="local", pretrained=True, num_classes=3, in_chans=1)
import c2l_models
assert c2l_models.__file__.startswith(root), c2l_models.__file__
assert c2l_models.__version__
assert model.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 3)
assert torch.hub.load(root, "densenet121", source="local")(torch.zeros(2, 3, 64, 64)).shape == (2, 1024)

# The remote path, offline: a copy of the repository lies where torch.hub unpacks its download.
torch.hub.set_dir(home)
options = {"trust_repo": True, "skip_validation": True}
assert torch.hub.list("owner/name:main", **options) == ["densenet121", "resnet18"]
for name, features in (("resnet18", 512), ("densenet121", 1024)):
    text = torch.hub.help("owner/name:main", name, **options)
    assert f"radiographs [B, in_chans, H, W] to features [B, {features}]" in text
    for word in ("Args:", "pretrained:", "weights:", "in_chans:", f'torch.hub.load("OWNER/REPOSITORY", "{name}"'):
        assert word in text, word
again = torch.hub.load("owner/name:main", "resnet18", pretrained=True, **options)
assert torch.equal(again.bn1.weight, model.bn1.weight)

# The modules that ran here import only the dependencies that torch.hub checks before it runs anything.
import ast, runpy
from pathlib import Path
used = set()
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "c2l_models":
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.partition(".")[0])
dependencies = runpy.run_path(root + "/hubconf.py")["dependencies"]
used -= set(sys.stdlib_module_names)
assert {"torch", "huggingface_hub"} <= used <= {"c2l_models", *dependencies}, used
"""


def tracked(repository: Path) -> list[str]:
    """Files that git tracks, or would track after `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so the distributed files are unknown")
    return [name for name in listed.split("\0") if name and os.path.lexists(repository / name)]


def run(code: str, *arguments: Path, cwd: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["SOURCE_DATE_EPOCH"] = "1700000000"
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(done.stderr)


def copy_checkout(repository: Path, source: Path) -> list[str]:
    """Copy the repository without its tests to the folder `source`. Returns the files' names."""
    names = [name for name in tracked(repository) if not name.startswith("tests/")]
    for name in names:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (repository / name).is_symlink():
            target.symlink_to((repository / name).readlink())
        else:
            shutil.copyfile(repository / name, target)
    return names


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is older than the build needs")
    folder = tmp_path_factory.mktemp("wheel")
    copy_checkout(repository, folder / "source")
    run(BUILD, folder, cwd=folder / "source")
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_all_that_is_read_and_nothing_else(repository: Path, wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    # The link c2l_models/training makes the folder training part of the package.
    expected = {
        name if name.startswith("c2l_models/") else f"c2l_models/{name}"
        for name in tracked(repository)
        if name.startswith(("c2l_models/", "training/")) and name != "c2l_models/training"
    }
    assert {Path(name).suffix for name in expected} >= {".py", ".toml", ".md", ".safetensors", ".json", ".typed"}
    for name in ("recipes/smoke.toml", "datasets/datasets.toml", "evaluation/tasks.toml"):
        assert f"c2l_models/training/{name}" in held
    assert {name for name in held if ".dist-info/" not in name} == expected


def test_the_bytes_of_wheel_and_sdist_follow_from_their_content(repository: Path, wheel: Path, tmp_path: Path) -> None:
    """Two checkouts differ in folder, modes and times of files, and umask; their distributions are the same."""
    source = tmp_path / "another" / "place"
    copy_checkout(repository, source)
    for path in source.rglob("*"):
        if path.is_file():
            path.chmod(0o700)
            os.utime(path, (1.5e9, 1.5e9))
    run(f"import os; os.umask(0o077)\n{BUILD}", tmp_path, cwd=source)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    (sdist,) = wheel.parent.glob("*.tar.gz")
    assert (tmp_path / sdist.name).read_bytes() == sdist.read_bytes()


def test_the_sdist_holds_what_the_wheel_is_built_from(repository: Path, wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    root = sdist.name.removesuffix(".tar.gz")
    held = {member.name.removeprefix(f"{root}/") for member in members if member.isfile()}
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= held
    assert all(member.isfile() or member.isdir() for member in members), "no link"


def test_torch_hub_loads_from_a_zip_of_the_repository(repository: Path, tmp_path: Path) -> None:
    archive, root, home = tmp_path / "repository.zip", tmp_path / "copy", tmp_path / "hub"
    with zipfile.ZipFile(archive, "w") as file:
        for name in tracked(repository):
            path = repository / name
            # Python's zipfile, which torch.hub uses, unpacks a link as a small file that contains its target.
            file.writestr(name, str(path.readlink()) if path.is_symlink() else path.read_bytes())
    for copy in (root, home / "owner_name_main"):
        with zipfile.ZipFile(archive) as file:
            file.extractall(copy)
    assert (root / "c2l_models" / "training").read_text() == "../training"
    run(HUB, root, home, cwd=tmp_path)
