"""A slim run: smaller, with the same backbone, probed and exported like the whole run."""

import json
import shutil

import pytest
import torch

from c2l_models.cli import main
from c2l_models.errors import RunError
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe_files import from_dict
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.backbone import load_run_backbone
from c2l_models.training.run_files.run_folder import load_run_store
from c2l_models.training.run_files.slim import slim_run


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0), (True, 1e-2)])
def test_a_slim_run_has_the_same_backbone(tiny_run, tiny_store, tmp_path, half, tolerance):
    file = slim_run(tiny_run, tmp_path / "slim", half=half)
    whole = next((tiny_run / "checkpoints").glob("step-000000010-*"))
    assert file.stat().st_size < whole.stat().st_size / (5 if half else 2.5)
    images = torch.randn(2, 1, 32, 32)
    features = []
    for folder in (tiny_run, tmp_path / "slim"):
        backbone, recipe = load_run_backbone(folder, tiny_store)
        features.append(backbone(images))
        assert recipe.name == "tiny"
    torch.testing.assert_close(*features, rtol=tolerance, atol=tolerance)


def test_the_command_and_its_export(tiny_run, tmp_path):
    out = tmp_path / "carried"
    main(["slim", str(tiny_run), "--out", str(out), "--half"])
    assert {path.name for path in out.iterdir()} == {
        "recipe.json",
        "run.json",
        "initialization.json",
        "log.jsonl",
        "checkpoints",
    }
    main(["export", str(out), "--out", str(tmp_path / "slim.safetensors")])
    assert (tmp_path / "slim.safetensors").is_file()
    with pytest.raises(RunError, match="exists; choose another folder"):
        slim_run(tiny_run, out)


def test_the_other_network_of_a_slim_run_is_missing_because_it_is_slim(tiny_run, tmp_path):
    slim_run(tiny_run, tmp_path / "slim")
    message = r"expected the teacher's weights in .*, found a slim run with the student's alone; export the student's"
    with pytest.raises(RunError, match=message):
        load_run_backbone(tmp_path / "slim", teacher=True)


def test_a_slim_run_is_not_resumed(tiny_run, tiny_store, tmp_path):
    slim_run(tiny_run, tmp_path / "slim")
    recipe = from_dict(checkpoint.load(tiny_run).state["recipe"])
    with pytest.raises(RunError, match=r"found a slim one.*--recipe.initialization"):
        pretrain(recipe, tiny_store, tmp_path / "slim", "cpu", resume=True, progress=False)


def test_the_store_may_have_moved(tiny_run, tiny_store_folder, tmp_path):
    slim_run(tiny_run, tmp_path / "slim")
    run = json.loads((tmp_path / "slim" / "run.json").read_text())
    (tmp_path / "slim" / "run.json").write_text(json.dumps(run | {"store": str(tmp_path / "absent")}))
    moved = shutil.copytree(tiny_store_folder, tmp_path / "moved")
    assert load_run_store(tmp_path / "slim", moved).path == moved
