"""Opens weights as told on standard input, a JSON line each; says on standard output what came of it.

A process of its own, because huggingface_hub reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when it is imported; one for
many wishes, because that import takes a second. A wish: `weights`, and where wanted `sha256`; `registry`, the
releases.toml that holds; `to`, the folder to write them to.
"""

import json
import sys
from pathlib import Path

from c2l_models.errors import C2LError
from c2l_models.publishing.release_folder import write_release_folder
from c2l_models.releases import registry as weights

for line in sys.stdin:
    wish = json.loads(line)
    weights.REGISTRY = Path(wish.get("registry", weights.REGISTRY))
    try:
        record, file = weights.open_weights(wish["weights"], wish.get("sha256"))
        answer = {"name": record.name, "sha256": file.sha256, "location": str(file.location)}
        if "to" in wish:
            answer["files"] = [path.name for path in write_release_folder(record, wish["to"])]
    except C2LError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
