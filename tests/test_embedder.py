"""`RadiographEmbedder` in scikit-learn's pipelines, compared with `embed`."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import c2l_models
from c2l_models.errors import C2LError, RadiographError
from c2l_models.radiographs.phantom import write_films
from c2l_models.releases.record import Weights

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

from c2l_models.embedder import RadiographEmbedder  # noqa: E402


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_films(folder, 12)
    return sorted(map(str, folder.glob("*.png")))


def test_its_rows_are_the_features_of_embed(films):
    expected = c2l_models.embed(films, features="multiscale").features
    embedder = RadiographEmbedder(features="multiscale")
    np.testing.assert_array_equal(embedder.fit_transform(films), expected)
    assert embedder.get_feature_names_out().tolist() == [f"radiographembedder{i}" for i in range(expected.shape[1])]
    np.testing.assert_array_equal(clone(embedder).fit(films).transform(np.array(films)[:, None]), expected)
    alone = clone(embedder).fit(films).transform([Path(films[3])])
    np.testing.assert_allclose(alone, expected[3:4], atol=1e-5)  # another batch size rounds differently


@pytest.mark.parametrize(
    ("model", "features", "expected"),
    [("resnet18", "pooled", 512), ("resnet18", "multiscale", 128 + 256 + 512), ("densenet121", "pooled", 1024)],
)
def test_the_weights_are_read_once(films, monkeypatch, model, features, expected):
    files = []
    read = Weights.read
    monkeypatch.setattr(Weights, "read", lambda weights: files.append(weights.location) or read(weights))
    embedder = RadiographEmbedder(model, features=features)
    assert embedder.fit_transform(films[:2]).shape == (2, expected)
    assert len(embedder.get_feature_names_out()) == expected
    assert len(files) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"global_pool": "catavgmax"}),
        ("mobilenetv3_small_050", {}),
        ("mobilenetv3_small_050", {"num_classes": 3}),
    ],
)
def test_the_width_is_known_before_the_first_film(films, name, options):
    """The oracle is the network's own vector of one image before its head."""
    config = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    network = timm.create_model(name, pretrained_cfg_overlay=config | {"interpolation": "bilinear"}, **options).eval()
    hidden = network.forward_head(network.forward_features(torch.zeros(1, 3, 32, 32)), pre_logits=True)
    embedder = RadiographEmbedder(network).fit(films)
    assert len(embedder.get_feature_names_out()) == hidden.shape[1] == embedder.transform(films[:1]).shape[1]
    assert c2l_models.embed([], network).features.shape == (0, hidden.shape[1])


def test_a_pipeline_of_frozen_steps_needs_no_fit(films):
    """scikit-learn's own check: a pipeline with steps that learn nothing transforms at once."""
    pipeline = make_pipeline(RadiographEmbedder())
    check_is_fitted(pipeline)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(pipeline.transform(films[:2]), c2l_models.embed(films[:2]).features)


def test_it_cross_validates_in_a_pipeline(films, tmp_path):
    labels = np.arange(len(films)) % 2
    pipeline = make_pipeline(RadiographEmbedder(), LogisticRegression(max_iter=50), memory=str(tmp_path))
    scores = cross_val_score(pipeline, films, labels, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_a_file_that_cannot_be_read_raises_or_is_nan(films, tmp_path):
    (tmp_path / "no film.png").write_bytes(b"text")
    listed = [films[0], str(tmp_path / "no film.png"), films[1], films[0]]
    with pytest.raises(RadiographError, match=r"1 of 4 files cannot be read \(.*no film\.png: "):
        RadiographEmbedder().fit_transform(listed)
    rows = RadiographEmbedder(unreadable="nan").fit_transform(listed)
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), [False, True, False, False])
    np.testing.assert_allclose(rows[[0, 2, 3]], c2l_models.embed([films[0], films[1], films[0]]).features, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("film.png", r"found an array of shape \(\)"),
        (np.zeros((2, 3)), r"found an array of shape \(2, 3\)"),
        ([1.0, 2.0], "found a float in it"),
        ([0.0], "found a float in it"),
    ],
)
def test_anything_but_paths_is_refused(given, message):
    with pytest.raises(C2LError, match=message):
        RadiographEmbedder().fit([]).transform(given)


def test_a_wrong_argument_is_named():
    with pytest.raises(C2LError, match="unreadable to be 'raise' or 'nan', found 'skip'"):
        RadiographEmbedder(unreadable="skip").fit([])


def test_without_scikit_learn_it_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import c2l_models.embedder"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert "RadiographEmbedder needs scikit-learn, which is not installed: pip install scikit-learn" in done.stderr
