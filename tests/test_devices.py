"""Networks in half, bfloat16 and double precision, torch's default dtype, and devices that cannot be used."""

import numpy as np
import pytest
import torch

import c2l_models
from c2l_models import cli, embed
from c2l_models.devices import find_device
from c2l_models.errors import C2LError
from c2l_models.radiographs.phantom import write_films
from c2l_models.verification import verify

RELEASE = "resnet18.c2l_open26k"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return sorted(write_films(tmp_path_factory.mktemp("films"), 1, size=64).glob("*.png"))


@pytest.fixture(scope="module")
def expected(films):
    return {readout: embed(films, RELEASE, features=readout).features for readout in ("pooled", "multiscale")}


@pytest.fixture
def double(monkeypatch):
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("readout", ["pooled", "multiscale"])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 3), (torch.bfloat16, 2), (torch.float64, 6)])
def test_models_of_every_precision(films, expected, dtype, digits, readout):
    model = c2l_models.resnet18(weights=RELEASE).to(dtype)
    found = embed(films, model, features=readout)
    assert found.features.dtype == np.float32
    size = np.abs(expected[readout]).max()
    np.testing.assert_allclose(found.features / size, expected[readout] / size, atol=2 * 10.0**-digits)
    assert {p.dtype for p in model.parameters()} == {dtype}  # the caller's model has not changed


def test_torch_computes_in_double_by_default(films, expected, double):
    np.testing.assert_array_equal(embed(films, RELEASE).features, expected["pooled"])  # bit by bit
    model = c2l_models.resnet18(weights=RELEASE)
    np.testing.assert_allclose(embed(films, model).features, expected["pooled"], rtol=1e-4, atol=1e-5)
    assert verify(RELEASE).ok


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_exported_files_do_not_depend_on_torchs_default(tmp_path, double, format):
    from c2l_models.publishing.export import export_weights

    if format == "onnx":
        pytest.importorskip("onnxruntime")
    exported = export_weights(RELEASE, tmp_path / f"a.{format}", format)
    assert exported.difference <= 1e-4
    if format == "pt2":
        module = torch.export.load(exported.path).module()
        assert {p.dtype for p in module.parameters()} == {torch.float32}


UNUSABLE = ["meta", "vulkan", "hpu", "privateuseone"]
UNUSABLE += [] if torch.backends.mps.is_available() else ["mps"]
UNUSABLE += [] if hasattr(torch, "xpu") and torch.xpu.is_available() else ["xpu"]
UNUSABLE += ["cuda:7"] if torch.cuda.is_available() else ["cuda", "cuda:7"]


@pytest.mark.parametrize("device", [*UNUSABLE, "nonsense", "cpu:x"])
def test_a_device_that_cannot_be_used(device, films):
    with pytest.raises(C2LError, match=device) as raised:
        embed(films, RELEASE, device=device)
    assert "\n" not in str(raised.value)
    assert "cpu" in str(raised.value)


def test_a_model_on_meta(films):
    with pytest.raises(C2LError, match="meta"):
        embed(films, c2l_models.resnet18(weights=RELEASE).to("meta"))


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_devices_of_every_machine(device):
    assert find_device(device).type == "cpu"


def test_on_the_command_line(films, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["embed", str(films[0]), "--device", "meta"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("c2l: device 'meta' cannot be used")
    assert message.count("\n") == 1


@pytest.mark.training
def test_training_in_double_is_refused(double, tmp_path):
    from c2l_models.training.distributed import join

    with pytest.raises(C2LError, match=r"float64; call torch\.set_default_dtype\(torch\.float32\)"), join("cpu"):
        pass


@pytest.mark.training
def test_features_for_a_probe_in_every_precision():
    from c2l_models.training.features import extract_features

    store = torch.randint(0, 256, (5, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = c2l_models.resnet18(weights=RELEASE, in_chans=1)
    before = extract_features(network, store, np.arange(5), 64, 0.5, 0.25)
    for dtype, digits in ((torch.float64, 6), (torch.bfloat16, 2)):  # in this order: rounding stays
        features = extract_features(network.to(dtype), store, np.arange(5), 64, 0.5, 0.25)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features / before.max(), before / before.max(), atol=2 * 10.0**-digits)
