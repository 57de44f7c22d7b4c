"""The demo from end to end on few images: a user's folder without labels, and synthetic films with labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import c2l_models
from c2l_models.errors import C2LError, DatasetError
from c2l_models.radiographs.phantom import write_films
from c2l_models.training.commands import demo
from c2l_models.training.commands.demo import caption, fresh_folder, print_contrast, run_demo
from c2l_models.training.evaluation.tasks import Task
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    folder = write_films(tmp_path / "mine", 18, size=64)
    (folder / "labels.csv").unlink()
    (folder / "torn.png").write_bytes(next(folder.glob("*.png")).read_bytes()[:700])
    return folder


def test_own_images_without_labels(own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = run_demo(tmp_path / "out", own_images, seconds=0.1)
    printed = " ".join(capsys.readouterr().out.split())
    assert all(path.exists() for path in files)
    assert all(path.name in printed for path in files)
    assert own_images not in files  # not written by the demo
    assert "18 images" in printed
    assert "1 left out" in printed
    assert "No linear probe: it needs labels" in printed
    weights = next(path for path in files if path.suffix == ".safetensors")
    assert c2l_models.resnet18(weights=weights).num_features == 512


def test_synthetic_films_are_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FILMS", 48)
    files = run_demo(tmp_path, seconds=0.1)
    printed = " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "films" / "labels.csv").is_file()
    assert tmp_path / "films" in files
    assert "After minus before, paired:" in printed
    assert "pneumothorax" in printed
    assert "No linear probe" not in printed
    assert all(f"{loader} │" in printed for loader in ("c2l_models", "torch.hub, local"))
    assert "timm, from a folder │" in printed or "cannot read safetensors files" in printed  # an old torch
    with Image.open(tmp_path / "neighbours.png") as picture:
        assert np.asarray(picture).std() > 10


def test_a_folder_that_describes_itself_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = write_films(tmp_path / "films", 12, size=16)
    (films / "dataset.toml").write_text("name = 'my_chests'")
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    made = prepare([("folder", films)], tmp_path / "store", 16, workers=1, progress=False).store
    store = ImageStore.open(made)
    assert demo.why_no_probe(store) == ""

    def name_of_task(target: str, store: ImageStore, task: Task, **settings: object) -> None:
        raise C2LError(task.name)

    monkeypatch.setattr(demo, "probe", name_of_task)
    assert demo.show_probes(store, tmp_path / "weights", 0) == "my_chests"


def test_too_few_images_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = write_films(tmp_path / "few", 15, size=8)
    with pytest.raises(DatasetError, match=r"expected at least 16 readable .* found 15 in .*few"):
        run_demo(tmp_path / "out", folder)
    with pytest.raises(DatasetError, match="found 0 in"):
        run_demo(tmp_path / "out", tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_an_earlier_demo_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for name in ("demo", "demo-2", "demo-3"):
        folder = fresh_folder(out)
        assert folder == tmp_path / name
        (folder / "something").touch()


def test_captions() -> None:
    labels = [("nodule", 1.0), ("grade", 3.0), ("effusion", 0.0), ("mass", float("nan"))]
    assert caption({"path": "a/b.png", "labels": labels}) == "nodule, grade 3"
    assert caption({"path": "a/b.png", "labels": [("effusion", 0.0)]}) == "no finding"
    assert caption({"path": "a/b.png", "labels": [("mass", float("nan"))]}) == "b.png"


def test_what_a_run_says_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("")
    print_contrast(tmp_path)
    assert "more seconds" in capsys.readouterr().out
    steps = [
        {"kind": "train", "step": 2, "loss": 6.5, "top1": 0.0},
        {"kind": "probe", "step": 2, "folder": 0.5},
        {"kind": "train", "step": 72, "loss": 5.25, "top1": 0.5},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in steps))
    print_contrast(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "In 72 steps the loss went from 6.50 to 5.25" in printed
    assert "went from 0% to 50%" in printed
