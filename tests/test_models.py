"""`create_model` and the builders: outputs against torchvision, timm's options, and refused weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from c2l_models import densenet121, get_weights, list_weights, resnet18
from c2l_models.errors import C2LError, WeightsCorrupted, WeightsNotFound
from c2l_models.models import create_model
from c2l_models.publishing.timm_folder import write_timm_folder
from c2l_models.releases import registry as weights_module
from c2l_models.releases.record import Weights, save_weights

HEADS = {"resnet18": "fc", "densenet121": "classifier"}
FEATURES = {"resnet18": 512, "densenet121": 1024}
NAMES = sorted(HEADS)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of random weights per architecture, with batch-norm statistics other than 0 and 1."""
    folder, files = tmp_path_factory.mktemp("files"), {}
    for name in NAMES:
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, in_chans=1, **no_zero_init(name)).train()
        with torch.no_grad():
            model(torch.randn(4, 1, 64, 64))
        files[name] = folder / f"{name}.safetensors"
        config = {"architecture": name, "tag": "test", "mean": 0.4, "std": 0.2, "recipe": "none"}
        save_weights(files[name], model.state_dict(), config | {"input_size": [3, 64, 64], "trained_on": ["noise"]})
    return files


def no_zero_init(name: str) -> dict[str, Any]:
    return {"zero_init_last": False} if name == "resnet18" else {}


@pytest.fixture(scope="module")
def film() -> Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 4 - 2


@torch.inference_mode()
def run(model: nn.Module, batch: Tensor) -> Any:
    return model.eval()(batch)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_torchvisions_network(name: str, files: dict[str, Path], film: Tensor) -> None:
    stored = {
        key: value.float() if value.is_floating_point() else value for key, value in load_file(files[name]).items()
    }
    reference = getattr(torchvision.models, name)()
    setattr(reference, HEADS[name], nn.Identity())
    assert list(reference.state_dict()) == list(create_model(name).state_dict())
    reference.load_state_dict(stored)
    found = run(create_model(name, weights=files[name]), film.repeat(1, 3, 1, 1))
    assert found.shape == (2, FEATURES[name])
    torch.testing.assert_close(found, run(reference, film.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_and_three_channels_agree(name: str, files: dict[str, Path], film: Tensor) -> None:
    three = run(create_model(name, weights=files[name]), film.repeat(1, 3, 1, 1))
    one = run(create_model(name, weights=files[name], in_chans=1), film)
    assert relative(one, three) < 2e-6
    two = run(create_model(name, weights=files[name], in_chans=2), film.repeat(1, 2, 1, 1))
    assert relative(two, three) < 2e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_new_head_sits_on_the_same_features(name: str, files: dict[str, Path], film: Tensor) -> None:
    plain = run(create_model(name, weights=files[name], in_chans=1), film)
    model = create_model(name, weights=files[name], in_chans=1, num_classes=14, drop_rate=0.5)
    assert run(model, film).shape == (2, 14)
    assert relative(model.forward_head(model.forward_features(film), pre_logits=True), plain) < 2e-6
    model.reset_classifier(0)
    assert relative(run(model, film), plain) < 2e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_classes", [0, 5])
def test_feature_maps_are_the_plain_networks(name: str, num_classes: int, files: dict[str, Path], film: Tensor) -> None:
    plain = create_model(name, weights=files[name], in_chans=1, global_pool="")
    pyramid = create_model(name, weights=files[name], in_chans=1, features_only=True, num_classes=num_classes)
    maps = run(pyramid, film)
    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]
    last = maps[-1] if name == "resnet18" else maps[-1].relu()
    assert relative(last, run(plain, film)) < 2e-6


@pytest.mark.parametrize("feature_cls", ["hook", "getter"])
def test_extractors_that_keep_the_plain_model_inside_hold_no_second_copy(
    feature_cls: str, files: dict[str, Path]
) -> None:
    model = resnet18(weights=files["resnet18"], features_only=True, feature_cls=feature_cls)
    configs = [m.pretrained_cfg for m in model.modules() if hasattr(m, "pretrained_cfg")]
    assert configs
    assert all("state_dict" not in config for config in configs)


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"features_only": True}])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_pretrained_cfg_tells_the_truth(in_chans: int, options: dict[str, Any], files: dict[str, Path]) -> None:
    model = resnet18(weights=files["resnet18"], in_chans=in_chans, **options)
    config = model.pretrained_cfg
    assert "state_dict" not in config
    assert not {"url", "hf_hub_id", "file"} & set(config)
    assert (config["architecture"], config["tag"]) == ("resnet18", "test")
    data = resolve_data_config(model=model)
    assert data["input_size"] == (in_chans, 64, 64)
    assert (data["mean"], data["std"]) == ((0.4,) * in_chans, (0.2,) * in_chans)
    assert (data["interpolation"], data["crop_pct"], data["crop_mode"]) == ("bilinear", 1.0, "center")


@pytest.mark.parametrize("in_chans", [1, 3])
def test_timms_own_transform_gives_what_ours_gives(in_chans: int, files: dict[str, Path]) -> None:
    from c2l_models.verification import golden_image

    model = resnet18(weights=files["resnet18"], in_chans=in_chans)
    theirs = create_transform(**resolve_data_config(model=model))
    image = golden_image(64)
    found = theirs(image if in_chans == 1 else image.convert("RGB"))
    ours = Weights.from_file(files["resnet18"]).transform(in_chans)(image)
    torch.testing.assert_close(found, ours, rtol=0, atol=1e-6)


def test_every_source_of_weights_gives_the_same_network(files: dict[str, Path], tmp_path: Path) -> None:
    record = Weights.from_file(files["resnet18"])
    folder = write_timm_folder(record, tmp_path)
    expected = resnet18(weights=files["resnet18"]).state_dict()
    for source in (str(files["resnet18"]), record, folder, str(folder)):
        found = resnet18(True, weights=source).state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_embedded_release_is_the_default(film: Tensor) -> None:
    name = weights_module.default_weights("resnet18").name
    assert name in list_weights("resnet18")
    found = run(resnet18(pretrained=True, in_chans=1), film)
    assert torch.equal(run(resnet18(weights=name, in_chans=1), film), found)
    assert torch.equal(run(resnet18(weights=get_weights(name), in_chans=1), film), found)
    assert not torch.equal(run(resnet18(in_chans=1, zero_init_last=False), film), found)


def test_sha256_is_checked_where_it_is_given(files: dict[str, Path]) -> None:
    right = Weights.from_file(files["resnet18"]).sha256
    assert resnet18(weights=files["resnet18"], sha256=right.upper())
    with pytest.raises(WeightsCorrupted, match=rf"expected sha256 {'0' * 64}, found {right}"):
        resnet18(weights=files["resnet18"], sha256="0" * 64)
    for release in ({"pretrained": True}, {"weights": weights_module.default_weights("resnet18").name}):
        with pytest.raises(WeightsCorrupted, match=rf"expected sha256={right}, found .* registered for"):
            resnet18(sha256=right, **release)
    with pytest.raises(C2LError, match="expected pretrained=True or weights= beside sha256="):
        densenet121(sha256=right)


def test_a_release_that_was_changed_is_never_loaded(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Weights.from_file(files["resnet18"])
    data = bytearray(files["resnet18"].read_bytes())
    data[-100] ^= 1
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.safetensors").write_bytes(data)
    (tmp_path / "releases.toml").write_text(
        f'[resnet18.a]\ndefault = true\nfile = "a.safetensors"\nsha256 = "{record.sha256}"\nnum_params = 1\n'
        "mean = [0.4, 0.4, 0.4]\nstd = [0.2, 0.2, 0.2]\ninput_size = [3, 64, 64]\n"
        'trained_on = []\nrecipe = "r"\nlicense = "l"\n'
    )
    monkeypatch.setattr(weights_module, "REGISTRY", tmp_path / "releases.toml")
    for options in ({"pretrained": True}, {"weights": "resnet18.a"}):
        with pytest.raises(WeightsCorrupted, match=r"a\.safetensors.*sha256"):
            resnet18(**options)


def drop(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(key)


def put(key: str, *shape: int) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({key: torch.zeros(*shape)})


@pytest.mark.parametrize("options", [{}, {"num_classes": 5, "in_chans": 1}])
@pytest.mark.parametrize(
    ("change", "key"),
    [
        (drop("layer3.0.bn1.weight"), "layer3.0.bn1.weight"),
        (drop("conv1.weight"), "conv1.weight"),
        (put("layer9.weight", 3), "layer9.weight"),
        (put("fc.weight", 1000, 512), "fc.weight"),
        (put("fc.bias", 5), "fc.bias"),  # this would fit the new head
        (put("layer1.0.conv1.weight", 64, 64, 1, 1), "layer1.0.conv1.weight"),
        (put("conv1.weight", 64, 4, 7, 7), "conv1.weight"),
        (put("conv1.weight", 64, 1, 7, 7), "conv1.weight"),
        (put("conv1.weight", 64, 3, 3, 3), "conv1.weight"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: Callable[[dict[str, Tensor]], object],
    key: str,
    options: dict[str, Any],
    files: dict[str, Path],
    tmp_path: Path,
) -> None:
    from safetensors import safe_open

    with safe_open(files["resnet18"], "pt") as file:
        metadata = file.metadata()
    tensors = load_file(files["resnet18"])
    change(tensors)
    save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(WeightsCorrupted, match=rf"a\.safetensors.*{key}"):
        resnet18(weights=tmp_path / "a.safetensors", **options)
    if not options:
        with pytest.raises(WeightsCorrupted, match=key):
            resnet18(weights=tmp_path / "a.safetensors", features_only=True)


def test_a_stem_that_the_file_does_not_have_is_not_left_at_random(files: dict[str, Path]) -> None:
    with pytest.raises(C2LError, match=r"found avg_down=.*downsample"):
        resnet18(weights=files["resnet18"], num_classes=5, avg_down=True)


@pytest.mark.parametrize("num_classes", [0, 5])
def test_an_argument_that_changes_the_network_is_named_not_the_file(files: dict[str, Path], num_classes: int) -> None:
    for options in ({"norm_layer": nn.InstanceNorm2d}, {"block_args": {"attn_layer": "se"}}):
        with pytest.raises(C2LError, match=f"found {next(iter(options))}=: .*Leave them out") as caught:
            resnet18(weights=files["resnet18"], num_classes=num_classes, **options)
        assert not isinstance(caught.value, WeightsCorrupted)


def test_arguments_that_contradict_each_other(files: dict[str, Path]) -> None:
    with pytest.raises(C2LError, match="pretrained=False contradicts weights="):
        resnet18(pretrained=False, weights=files["resnet18"])
    with pytest.raises(C2LError, match=r"expected weights of densenet121, found resnet18 in .*resnet18\.safetensors"):
        densenet121(weights=files["resnet18"])
    with pytest.raises(WeightsNotFound, match="did you mean 'resnet18'"):
        create_model("resnet81")
    with pytest.raises(WeightsNotFound, match="no release"):
        resnet18(weights="resnet18.nonexistent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("levit_128", r"expected an architecture with one classifier, found \('head.linear', 'head_dist.linear'\)"),
        ("repvgg_a0", "expected an architecture with one first convolution, found .* in timm's repvgg_a0"),
        ("nf_regnet_b0", "expected .* a plain first convolution, found a ScaledStdConv2d in timm's nf_regnet_b0"),
        ("resnet19", "no architecture 'resnet19'; did you mean 'resnet18'"),
    ],
)
def test_architectures_that_cannot_be_used_say_why(name: str, message: str) -> None:
    with pytest.raises(WeightsNotFound, match=message):
        create_model(name)


class Hostile:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("pretrained", [None, True])
def test_no_pickle_is_loaded_through_timms_keywords(pretrained: bool | None, tmp_path: Path) -> None:
    trace, file = tmp_path / "trace", tmp_path / "hostile.pth"
    torch.save({"state_dict": Hostile(trace)}, file)
    for options in (
        {"checkpoint_path": str(file)},
        {"pretrained_cfg": {"file": str(file)}},
        {"pretrained_cfg_overlay": {"file": str(file)}},
        {"pretrained_strict": False},  # a file without some layers would load
    ):
        with pytest.raises(C2LError, match=f"{next(iter(options))} cannot be used, .* as weights="):
            resnet18(pretrained, **options)
    assert not trace.exists()
    torch.load(file, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("pretrained", ["resnet18.typo", Path("a.safetensors"), 1, ""])
def test_pretrained_is_yes_or_no(pretrained: Any) -> None:
    with pytest.raises(C2LError, match=r"expected True, False or None for pretrained, found .*weights="):
        resnet18(pretrained)


@pytest.mark.parametrize("pretrained", [False, True])
def test_an_unknown_keyword_is_timms_error(pretrained: bool) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        resnet18(pretrained, no_such_option=1)


def test_without_weights_the_network_is_random_and_has_no_head() -> None:
    model = resnet18()
    assert (model.num_classes, model.conv1.weight.shape[1]) == (0, 3)
    assert not torch.equal(resnet18(pretrained=False).conv1.weight, model.conv1.weight)
