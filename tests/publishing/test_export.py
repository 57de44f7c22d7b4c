"""Exported files, run by their runtimes, compute the features of the network in eager mode."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import c2l_models
from c2l_models import cli, get_weights
from c2l_models.errors import C2LError, WeightsNotFound
from c2l_models.publishing import export
from c2l_models.publishing.export import export_weights, is_run_folder

torch.set_num_threads(1)

NAME = "resnet18.c2l_open26k"
SIDE = get_weights(NAME).input_size[-1]


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    return torch.randn(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def expected(films: torch.Tensor) -> torch.Tensor:
    """The release's features of the films in three channels; exported files must compute them from one channel."""
    with torch.inference_mode():
        return c2l_models.resnet18(weights=NAME).eval()(films.expand(-1, 3, -1, -1))


def check(metadata: dict[str, str]) -> None:
    weights = get_weights(NAME)
    assert (metadata["release"], metadata["sha256"], metadata["size"]) == (NAME, weights.sha256, str(SIDE))
    assert (float(metadata["mean"]), float(metadata["std"])) == (weights.mean[0], weights.std[0])


def names_of_this_machine(data: bytes) -> list[bytes]:
    return [text for text in (b"site-packages", str(Path(__file__).parents[2]).encode()) if text in data]


def test_onnx(films: torch.Tensor, expected: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "a.onnx"
    cli.main(["export", NAME, "--out", str(path)])
    assert f"{path}: features differ" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]  # no other file
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        found = session.run(["features"], {"image": films[:count].numpy()})[0]
        assert np.abs(found - expected[:count].numpy()).max() < 1e-4 * expected.abs().max()
    model = onnx.load(path)
    check({entry.key: entry.value for entry in model.metadata_props})
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not names_of_this_machine(path.read_bytes())


def test_torch_export(films: torch.Tensor, expected: torch.Tensor, tmp_path: Path) -> None:
    done = export_weights(get_weights(NAME).path(), tmp_path / "a.pt2", "pt2")
    assert done.difference < 1e-5
    extra = {"c2l.json": ""}
    network = torch.export.load(done.path, extra_files=extra).module()
    for count in (1, 5):
        torch.testing.assert_close(
            network(films[:count]), expected[:count], rtol=0, atol=1e-4 * float(expected.abs().max())
        )
    check(json.loads(extra["c2l.json"]))
    assert not names_of_this_machine(done.path.read_bytes())


class Tiny(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) * torch.ones(1, 4)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the release's network by a small network, which is quick to export."""
    monkeypatch.setattr("c2l_models.models.model_from_file", lambda *_, **__: Tiny().eval())


@pytest.mark.parametrize("fault", ["values", "shape", "nan"])
def test_a_file_that_computes_something_else_is_not_written(
    fault: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = {"values": lambda y: y * 1.001, "shape": lambda y: y[:, :3], "nan": lambda y: y * np.nan}[fault]
    translate = export._pt2

    def wrong(*arguments: object) -> tuple[bytes, export.Run]:
        data, run = translate(*arguments)
        return data, lambda images: change(run(images))

    monkeypatch.setattr(export, "_pt2", wrong)
    with pytest.raises(C2LError, match="not written, because the exported features differ"):
        export_weights(NAME, tmp_path / "a.pt2", "pt2")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()


def test_safetensors_of_a_release_is_the_file_itself(tmp_path: Path) -> None:
    cli.main(["export", NAME, "--out", str(tmp_path / "a.safetensors")])
    assert (tmp_path / "a.safetensors").read_bytes() == get_weights(NAME).path().read_bytes()
    again = export_weights(tmp_path / "a.safetensors", tmp_path / "b", "safetensors")
    assert again.path.read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_told_before_any_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def imported(module: str) -> None:
        if module == name:
            raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(export, "import_module", imported)
    monkeypatch.setattr(export, "open_weights", None)
    with pytest.raises(C2LError, match=rf"needs {name}, .*pip install 'c2l-models\[export\]'"):
        export_weights(NAME, tmp_path / "a.onnx", "onnx")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([NAME, "--out", "a.bin"], "ends in .safetensors, .onnx, .pt2"),
        (
            ["nothing", "--out", "a.pt2"],
            "expected a run folder, a release or a weight file, found nothing: no release 'nothing'",
        ),
        (
            [NAME, "--out", "a.pt2", "--teacher"],
            "--teacher, --best, --tag, --size, --license and --device need a run folder, found resnet18",
        ),
        (
            [NAME, "--out", "a.pt2", "--tag", "mine"],
            "--tag, --size, --license and --device need a run folder, found resnet18.c2l_open26k; leave them out",
        ),
        (["empty", "--out", "a.safetensors"], "found no run.json in empty"),
    ],
)
def test_what_the_command_refuses(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", *arguments])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_a_run_folder_is(tmp_path: Path) -> None:
    assert is_run_folder(tmp_path)
    assert not is_run_folder(tmp_path / "absent")
    (tmp_path / "model.safetensors").touch()
    assert not is_run_folder(tmp_path)
    with pytest.raises(C2LError, match=r"expected one of the formats .*found 'tf'"):
        export_weights(NAME, tmp_path / "a", "tf")
    with pytest.raises(WeightsNotFound, match=r"no release 'resnet18\.nothing'"):
        export_weights("resnet18.nothing", tmp_path / "a.pt2", "pt2")


def test_a_run_is_exported_through_its_weight_file(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks only that the run's weight file is exported; tests of runs cover `export_run`."""
    passed: list[object] = []

    def export_run(run: Path, path: Path, *options: object) -> Path:
        passed.extend((run, *options))
        path.write_bytes(get_weights(NAME).path().read_bytes())
        return path

    monkeypatch.setattr("c2l_models.training.run_files.backbone.export_run", export_run)
    (tmp_path / "run").mkdir()
    cli.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "a.pt2"), "--teacher", "--size", "96"])
    assert passed == [tmp_path / "run", None, True, "custom", 96, "unknown", False, torch.device("cpu")]
    found = torch.export.load(io.BytesIO((tmp_path / "a.pt2").read_bytes())).module()
    assert found(torch.ones(3, 1, SIDE, SIDE)).shape == (3, 4)
