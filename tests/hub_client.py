"""The hub's real client, and what uses it, in a process of its own that asks the stand-in."""

import os
import subprocess
import sys
from pathlib import Path

from hub_stand_in import TOKEN

C2L = "from c2l_models.cli import main; main()"


def environment(endpoint: str, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Variables that send the client to `endpoint`, with a cache in `home` and nobody's own token."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    own |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    return own | ({"HF_TOKEN": token} if token else {})


def python(
    code: str, *arguments: object, cwd: Path, endpoint: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run `code` in the folder `cwd`, whose `hf` is the client's home."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=environment(endpoint, cwd / "hf", token),
        capture_output=True,
        text=True,
    )
