"""Processes that load weights from the stand-in for the hub, and small weight files for many such loads."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hub_stand_in import TOKEN, HubStandIn
from safetensors.numpy import save

C2L = "from c2l_models.cli import main; main()"
DRIVER = Path(__file__).with_name("drivers") / "hub_client.py"

CONFIG = {
    "architecture": "resnet18",
    "tag": "test",
    "num_params": 1,
    "mean": [0.4, 0.4, 0.4],
    "std": [0.2, 0.2, 0.2],
    "input_size": [3, 64, 64],
    "trained_on": ["noise"],
    "recipe": "none",
    "license": "CC-BY-4.0",
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}


def small_weights(seed: int = 0, size: int = 30_000) -> bytes:
    """A weight file with `size` random bytes and a configuration. It fits no network."""
    tensors = {"noise": np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)}
    return save(tensors, metadata={"c2l": json.dumps(CONFIG)})


def variables_for(home: Path, endpoint: str) -> dict[str, str]:
    """This process's environment without HF_… and proxy variables, with a hub, a cache and LFS uploads."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return own | hub | {"HF_HUB_DISABLE_XET": "1"}


def python(
    code: str, *arguments: object, cwd: Path, endpoint: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run `code` in the folder `cwd`, which also holds the client's home, without this user's own token."""
    variables = variables_for(cwd / "hf", endpoint) | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)


class Client:
    """A process with huggingface_hub that runs inside a `with` block; `client(weights=...)` returns the answer.

    `variables` are added to this process's environment without its HF_… and proxy variables.
    """

    def __init__(self, home: Path, endpoint: str, **variables: str) -> None:
        others = {key for key in os.environ if key.startswith("HF_") or key.lower().endswith("_proxy")}
        own = {key: value for key, value in os.environ.items() if key not in others}
        hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self.environment = own | hub | variables

    def __enter__(self) -> "Client":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, str(DRIVER)]
        self._process = subprocess.Popen(command, env=self.environment, text=True, **pipes)  # type: ignore[call-overload]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def __call__(self, **request: str) -> dict[str, Any]:
        self.ask(**request)
        return self.answer()

    def ask(self, **request: str) -> None:
        """Send a request without waiting for the answer."""
        print(json.dumps(request), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the oldest unanswered request."""
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1]  # the driver's traceback
        return json.loads(line)


FILE = "model.safetensors"
DATA = small_weights()
SHA256 = hashlib.sha256(DATA).hexdigest()


def new_requests(hub: HubStandIn) -> list[str]:
    """Return the requests since the last call, without the client's own."""
    found = [request for request in hub.requests if "agent-harnesses" not in request and "owner/cut" not in request]
    hub.requests.clear()
    return found


def blobs(client: Client, repo_id: str) -> list[Path]:
    """Return the cached files that the client considers complete; old versions also keep partial files."""
    folder = Path(client.environment["HF_HOME"], "hub", f"models--{repo_id.replace('/', '--')}")
    return [path for path in folder.glob("blobs/*") if path.suffix != ".incomplete"]


def register(folder: Path, table: str, sha256: str = SHA256) -> str:
    """Write a registry with one release, `resnet18.test`. Returns its path."""
    path = folder / "releases.toml"
    path.write_text(
        f'[resnet18.test]\ndefault = true\n{table}\nsha256 = "{sha256}"\nnum_params = 1\nmean = [0.4, 0.4, 0.4]\n'
        'std = [0.2, 0.2, 0.2]\ninput_size = [3, 64, 64]\ntrained_on = ["noise"]\nrecipe = "none"\n'
        'license = "CC-BY-4.0"\n'
    )
    return str(path)
