"""A comparison's kept probes belong to the weights that are named now, and to one network each."""

import hashlib
import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from c2l_models.errors import C2LError
from c2l_models.releases.registry import resolve
from c2l_models.training.initialization import load_initialization, weights_facts
from c2l_models.training.probing import compare as module
from c2l_models.training.probing.compare import compare
from c2l_models.training.run_files import checkpoint


def write_backbone(path, scale):
    """The release's weights, with the last layers' weights times `scale`, and its configuration."""
    source = resolve("resnet18.imagenet").path()
    with safe_open(source, "pt") as file:
        about = file.metadata()
    tensors = {name: tensor * scale if "layer4" in name else tensor for name, tensor in load_file(source).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, about)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured_weights(out):
    return {json.loads(file.read_text())["facts"]["weights_sha256"] for file in out.glob("probes/*/*/result.json")}


def test_two_files_of_one_name_have_their_own_results(tiny_store, tmp_path):
    files = [tmp_path / folder / "backbone.safetensors" for folder in "ab"]
    hashes = [write_backbone(file, scale) for file, scale in zip(files, (1.25, 0.5), strict=True)]
    one, two = map(str, files)
    out = tmp_path / "out"
    found = compare([two], tiny_store, out, reference=one, size=32, sizes=(), progress=False)
    (task,) = found.tasks
    for network, sha256 in zip((one, two), hashes, strict=True):
        assert found.cell(network, task, False).results[0].facts["weights_sha256"] == sha256
    assert measured_weights(out) == set(hashes)


def test_a_kept_probe_of_a_replaced_file_is_refused(tiny_store, tmp_path, monkeypatch):
    file, out = tmp_path / "backbone.safetensors", tmp_path / "out"
    first = write_backbone(file, 1.25)
    compare([], tiny_store, out, reference=str(file), size=32, sizes=(), progress=False)
    monkeypatch.setattr(module, "probe", lambda *_, **__: pytest.fail("repeated"))
    compare([], tiny_store, out, reference=str(file), size=32, sizes=(), progress=False)
    second = write_backbone(file, 0.5)
    with pytest.raises(C2LError, match=rf"weights_sha256 {second}, found one with {first}; move it away"):
        compare([], tiny_store, out, reference=str(file), size=32, sizes=(), progress=False)


def test_the_facts_of_weights_are_those_of_the_loaded_network(small_run, tiny_store, cached_imagenet, monkeypatch):
    assert weights_facts("pixels") == {"architecture": "pixels"}
    assert weights_facts("random:resnet18") == weights_facts("untrained") == {}
    release = hashlib.sha256(resolve("resnet18.imagenet").path().read_bytes()).hexdigest()
    assert weights_facts("resnet18.imagenet") == {"weights_sha256": release}
    cached_imagenet("resnet18")
    for spec in ("pixels", "resnet18.imagenet", "imagenet", "imagenet:resnet18"):
        facts = weights_facts(spec)
        assert facts.items() <= load_initialization(spec, store=tiny_store).about.items()
    newest = sorted(file.name for file in (small_run / checkpoint.FOLDER).glob("step-*.pt"))[-1]
    store = json.loads((small_run / "run.json").read_text())["store_sha256"]
    assert weights_facts(str(small_run)) == {"checkpoint": newest, "trained_on_store": store}
