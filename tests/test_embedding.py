"""`embed` against one file at a time with timm and Pillow; order of files, errors and modes of modules."""

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from c2l_models import embedding
from c2l_models.embedding import Embeddings, embed
from c2l_models.errors import C2LError, RadiographError, WeightsNotFound

SIZE = 64
DESCRIBED = {
    "input_size": (3, SIZE, SIZE),
    "mean": (0.5,) * 3,
    "std": (0.25,) * 3,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}
rng = np.random.default_rng(0)


class Small(nn.Module):
    """A small network whose features depend on each quarter of the image."""

    def __init__(self, in_chans: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.num_features = 8
        self.pretrained_cfg = {"input_size": (in_chans, SIZE, SIZE), "mean": (0.5,), "std": (0.25,)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.norm(self.conv(x))).flatten(1)


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i:02}.png" for i in range(11)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE)).astype(np.uint8)).save(path)
    return paths


def one_by_one(model: nn.Module, paths: list[Path], channels: int, mean: float, std: float) -> np.ndarray:
    rows = []
    for path in paths:
        pixels = np.asarray(Image.open(path), np.float64)
        x = torch.tensor((pixels / 255 - mean) / std, dtype=torch.float32)
        with torch.no_grad():
            rows.append(model(x.repeat(1, channels, 1, 1))[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_rows_are_the_films_in_order(films: list[Path], batch_size: int) -> None:
    model = Small()
    order = films[::-1] + films[:2]
    got = embed(order, model, batch_size)
    expected = one_by_one(model.eval(), order, 1, 0.5, 0.25)
    assert got.paths == order
    assert got.errors == {}
    assert got.features.dtype == np.float32
    assert np.abs(got.features - expected).max() < 1e-6


@pytest.mark.parametrize("num_classes", [0, 5])
def test_a_timm_model_gives_its_features_with_or_without_a_head(films: list[Path], num_classes: int) -> None:
    config = DESCRIBED | {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    model = timm.create_model("resnet18", num_classes=num_classes, pretrained_cfg_overlay=config)
    got = embed(films, model)
    model.reset_classifier(0)
    expected = one_by_one(model.eval(), films, 3, 0.5, 0.2)
    assert got.features.shape == (11, 512)
    assert np.abs(got.features - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_unreadable_file_loses_no_other(films: list[Path], tmp_path: Path) -> None:
    bad, missing = tmp_path / "bad.png", tmp_path / "missing.png"
    bad.write_bytes(b"")
    got = embed([*films[:3], bad, *films[3:], missing], model := Small(), batch_size=4)
    assert got.paths == films
    assert got.errors == {bad: "the file is empty", missing: "no such file"}
    assert np.array_equal(got.features, embed(films, model).features)


def test_nothing_readable_is_an_empty_matrix(tmp_path: Path) -> None:
    got = embed([tmp_path / "missing.png"], Small())
    assert got.features.shape == (0, 8)
    assert got.paths == []
    assert embed([], Small()).features.shape == (0, 8)


def test_modes_are_given_back(films: list[Path]) -> None:
    model = Small().train()
    model.norm.eval()  # frozen statistics, as often in fine-tuning
    before = model.norm.running_mean.clone()
    embed(films, model)
    assert (model.training, model.conv.training, model.norm.training) == (True, True, False)
    assert torch.equal(model.norm.running_mean, before)
    model.pretrained_cfg = {}
    with pytest.raises(C2LError):
        embed(films, model)
    assert model.training


def test_modes_are_given_back_after_an_error(films: list[Path]) -> None:
    class Failing(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    model = Failing().train()
    with pytest.raises(ZeroDivisionError):
        embed(films, model)
    assert model.training
    assert model.norm.training


def test_progress_changes_nothing(
    films: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    model = Small()
    quiet = embed(films, model, 4)
    assert capsys.readouterr() == ("", "")
    assert np.array_equal(embed(films, model, 4, progress=True).features, quiet.features)
    assert "/11 films" in capsys.readouterr().err


def test_what_is_refused(films: list[Path]) -> None:
    with pytest.raises(C2LError, match=r"expected a list of paths, found one path"):
        embed(films[0], Small())
    with pytest.raises(C2LError, match="expected a batch_size of 1 or more, found 0"):
        embed(films, Small(), 0)
    with pytest.raises(C2LError, match=r"with a pretrained_cfg .*, found a Linear without;"):
        embed(films, nn.Linear(2, 2))
    with pytest.raises(C2LError, match="expected a device such as cpu, cuda or cuda:0, found 'gpu'"):
        embed(films, Small(), device="gpu")
    with pytest.raises(C2LError, match="one feature vector per image"):
        embed(films, timm.create_model("resnet18", features_only=True, pretrained_cfg_overlay=DESCRIBED))
    with pytest.raises(WeightsNotFound):
        embed(films, "resnet81")
    if not torch.cuda.is_available():
        with pytest.raises(C2LError, match="finds no GPU"):
            embed(films, Small(), device="cuda")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", (0.485, 0.456, 0.406)),
        ("std", (0.229, 0.224, 0.225)),
        ("crop_pct", 0.875),
        ("interpolation", "bicubic"),
    ],
)
def test_a_preprocessing_that_is_not_ours_is_not_replaced_by_ours(films: list[Path], key: str, value: object) -> None:
    model = timm.create_model("resnet18", pretrained_cfg_overlay=DESCRIBED | {key: value})
    with pytest.raises(
        C2LError,
        match=rf"expected a pretrained_cfg with one mean.*found {re.escape(f'{key} {value}')} .*create_transform",
    ):
        embed(films, model)


def test_a_file_is_read_once(films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from c2l_models import get_weights, list_weights
    from c2l_models.hub import weight_file

    path, reads, read = get_weights(list_weights("resnet18")[0]).path(), [], weight_file.read_verified

    def count(source: Path, sha256: str | None = None) -> weight_file.VerifiedFile:
        reads.append(source)
        return read(source, sha256)

    monkeypatch.setattr(weight_file, "read_verified", count)
    embed(films[:1], path)
    assert reads == [path]


@pytest.mark.parametrize("ahead", [False, True])
def test_at_most_one_batch_is_read_before_it_is_asked_for(ahead: bool) -> None:
    files = [Path(f"{number}.png") for number in range(10)]
    read: list[Path] = []

    def transform(path: Path) -> torch.Tensor:
        read.append(path)
        if path.stem == "5":
            raise RadiographError(f"{path}: broken")
        return torch.tensor([float(path.stem)])

    batches = embedding._read_batches(files, transform, 4, ahead)
    first = next(batches)
    assert first == [(path, torch.tensor([float(path.stem)])) for path in files[:4]]
    assert set(read) <= set(files[: 8 if ahead else 4])
    rest = [pair for batch in batches for pair in batch]
    assert [path for path, _ in rest] == files[4:]
    assert dict(rest)[files[5]] == "broken"
    assert sorted(read) == sorted(files)  # each once


def test_saved_and_loaded(films: list[Path], tmp_path: Path) -> None:
    got = embed(films, Small())
    got.save(tmp_path / "features.parquet")
    again = Embeddings.load(tmp_path / "features.parquet")
    assert again.paths == got.paths
    assert again.features.dtype == np.float32
    assert np.array_equal(again.features, got.features)
    empty = Embeddings(np.empty((0, 8), np.float32), [])
    empty.save(tmp_path / "empty.parquet")
    assert Embeddings.load(tmp_path / "empty.parquet").features.shape == (0, 8)
    assert (again.model, again.sha256) == ("", "")  # a model object has no name


def test_multiscale_features_are_the_last_three_maps_averaged(films: list[Path], tmp_path: Path) -> None:
    """The oracle reads the maps with hooks on torchvision's module names; a query is embedded as its table was."""
    from c2l_models import create_model
    from c2l_models.search import search

    name, maps = "resnet18.imagenet", []
    network = create_model("resnet18", weights=name, in_chans=1).eval()
    for layer in ("layer2", "layer3", "layer4"):
        network.get_submodule(layer).register_forward_hook(lambda module, inputs, output: maps.append(output[0]))
    got = embed(films[:2], name, features="multiscale")
    for path, row in zip(films[:2], got.features, strict=True):
        maps.clear()
        x = (
            torch.tensor(np.asarray(Image.open(path).resize((128, 128), Image.Resampling.BILINEAR))) / 255 - 0.5
        ) / 0.25
        with torch.no_grad():
            network(x[None, None])
        expected = np.concatenate([one.flatten(1).mean(1).numpy() for one in maps])
        assert expected.shape == row.shape == (896,)
        assert np.corrcoef(expected, row)[0, 1] > 0.999  # the resized pixels are rounded here
    got.save(tmp_path / "features.parquet")
    table = Embeddings.load(tmp_path / "features.parquet")
    assert table.readout == "multiscale"
    (tmp_path / "new.png").write_bytes(films[1].read_bytes())
    assert search(tmp_path / "new.png", table, 1).paths == [films[1]]
    assert embed([], name, features="multiscale").features.shape == (0, 896)
    with pytest.raises(C2LError, match="forward_intermediates for multiscale features, found a Small"):
        embed(films[:1], Small(), features="multiscale")
    with pytest.raises(C2LError, match="expected features to be one of pooled, multiscale, found 'all'"):
        embed(films[:1], Small(), features="all")  # type: ignore[arg-type]


def test_features_say_which_weights_computed_them(films: list[Path], tmp_path: Path) -> None:
    from c2l_models import get_weights

    weights = get_weights("resnet18.c2l_open26k")
    sources = {"resnet18": weights.name, weights.name: weights.name, weights.path(): str(weights.path())}
    for source, name in sources.items():
        embed(films[:1], source).save(tmp_path / "features.parquet")
        again = Embeddings.load(tmp_path / "features.parquet")
        assert (again.model, again.sha256) == (name, weights.sha256)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "text.parquet").write_text("path,feature\n")
    pq.write_table(pa.table({"path": ["a"], "feature": [1.0]}), tmp_path / "other.parquet")
    embeddings = pa.table({"path": ["a"], "feature": pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0]), 2)})
    pq.write_table(embeddings.replace_schema_metadata({"c2l": "{"}), tmp_path / "metadata.parquet")
    for name in ("missing.parquet", "text.parquet", "other.parquet", "metadata.parquet"):
        with pytest.raises(C2LError, match=f"{name}: .*c2l embed"):
            Embeddings.load(tmp_path / name)


def test_a_release_by_its_architecture(films: list[Path]) -> None:
    from c2l_models.releases.registry import default_weights

    try:
        weights = default_weights("resnet18")
    except WeightsNotFound:
        pytest.skip("no release yet")
    by_architecture, by_name, by_path = (
        embed(films, source).features for source in ("resnet18", weights.name, weights.path())
    )
    assert by_architecture.shape == (11, 512)
    assert np.array_equal(by_architecture, by_name)
    assert np.array_equal(by_architecture, by_path)
    assert np.ptp(by_architecture, axis=0).max() > 0


def test_the_readers_error_is_a_c2l_error() -> None:
    assert issubclass(RadiographError, C2LError)
