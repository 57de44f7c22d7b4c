"""End to end: a release on the hub's stand-in has the same features through timm and through c2l_models."""

import subprocess
import sys
from pathlib import Path

from hub_clients import Client
from hub_stand_in import HubStandIn

from c2l_models import get_weights, list_weights
from c2l_models.publishing.release_folder import write_release_folder

FEATURES = """
import sys
import timm, torch
import c2l_models
from c2l_models.verification import verify

release, name = sys.argv[1:]
film = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
torch.set_grad_enabled(False)
same = lambda found, expected: torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

packaged = c2l_models.resnet18(weights=release, in_chans=1).eval()
expected = packaged(film)
by_us = c2l_models.resnet18(weights=name, in_chans=1).eval()
assert torch.equal(by_us(film), expected)
same(c2l_models.resnet18(weights=name).eval()(film.repeat(1, 3, 1, 1)), expected)

by_timm = timm.create_model(name, pretrained=True, in_chans=1, num_classes=14).eval()
assert by_timm(film).shape == (2, 14)
same(by_timm.forward_head(by_timm.forward_features(film), pre_logits=True), expected)
same(timm.create_model(name, pretrained=True).eval()(film.repeat(1, 3, 1, 1)), expected)
data = timm.data.resolve_data_config(model=by_timm)
record = c2l_models.get_weights(name)
assert tuple(data["mean"]) == record.mean == c2l_models.get_weights(release).mean
assert record.sha256 == c2l_models.get_weights(release).sha256
assert verify(name).ok, "the golden embedding, of the provenance in the repository"

pyramid = timm.create_model(name, pretrained=True, in_chans=1, features_only=True).eval()
ours = c2l_models.resnet18(weights=name, in_chans=1, features_only=True).eval()
maps = pyramid(film)
assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]
for found, own in zip(maps, ours(film), strict=True):
    same(found, own)
same(maps[-1].mean((2, 3)), expected)

try:
    c2l_models.densenet121(weights=name)
except c2l_models.C2LError as error:
    assert f"{name}@" in str(error) and "expected weights of densenet121, found resnet18" in str(error), error
else:
    raise AssertionError("a resnet18 was built as a densenet121")
"""


def test_timm_and_we_give_the_same_features(tmp_path: Path) -> None:
    release = list_weights("resnet18")[0]
    files = write_release_folder(get_weights(release), tmp_path / "folder")
    with HubStandIn() as hub:
        hub.add_commit("owner/resnet18", {file.name: file.read_bytes() for file in files})
        environment = Client(tmp_path / "home", hub.endpoint).environment
        command = [sys.executable, "-c", FEATURES, release, "hf-hub:owner/resnet18"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        fetched = sum(request.startswith("GET") and request.endswith(".safetensors") for request in hub.requests)
    assert fetched == 1, "timm and we share the hub's cache"
