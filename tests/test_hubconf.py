"""torch.hub from a plain copy of the repository, as its remote loading lays it out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The installed package is hidden; what training and the command line need is not to be imported.
CHECK = """
import sys

root, home = sys.argv[1:]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
import torch
model = torch.hub.load(root, "resnet18", source="local", pretrained=True, num_classes=3, in_chans=1)
import c2l_models
assert c2l_models.__file__.startswith(root), c2l_models.__file__
assert c2l_models.__version__
assert model.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 3)
assert torch.hub.load(root, "densenet121", source="local")(torch.zeros(2, 3, 64, 64)).shape == (2, 1024)

# The remote path, offline: the repository where torch.hub would have unpacked it.
torch.hub.set_dir(home)
options = {"trust_repo": True, "skip_validation": True}
assert torch.hub.list("owner/name:main", **options) == ["densenet121", "resnet18"]
assert "radiographs" in torch.hub.help("owner/name:main", "resnet18", **options)
again = torch.hub.load("owner/name:main", "resnet18", pretrained=True, **options)
assert torch.equal(again.bn1.weight, model.bn1.weight)
assert not {"tyro", "pyarrow", "sklearn", "matplotlib", "tensorboard", "pydicom"} & set(sys.modules)
"""


def test_a_plain_copy_loads_without_installation(repository: Path, tmp_path: Path) -> None:
    root, home = tmp_path / "copy", tmp_path / "hub"
    for copy in (root, home / "owner_name_main"):
        ignore = shutil.ignore_patterns("training", "__pycache__")
        shutil.copytree(repository / "c2l_models", copy / "c2l_models", ignore=ignore)
        (copy / "c2l_models" / "training").write_text("../training")  # the link, as a zip holds it
        shutil.copy(repository / "hubconf.py", copy)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHECK, str(root), str(home)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.fail(done.stderr)
