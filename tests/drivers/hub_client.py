"""Open the weights that each JSON line on standard input names; write a JSON line with the result.

The driver runs in its own process, because huggingface_hub reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when it is
imported. One process handles many requests, because the import takes a second. A request has `weights`, and optionally
`sha256`, `registry` (path of a releases.toml) and `to` (a folder to write the release to).
"""

import json
import sys
from pathlib import Path

from c2l_models.errors import C2LError
from c2l_models.publishing.release_folder import write_release_folder
from c2l_models.releases import registry

for line in sys.stdin:
    request = json.loads(line)
    registry.REGISTRY = Path(request.get("registry", registry.REGISTRY))
    try:
        record, file = registry.open_weights(request["weights"], request.get("sha256"))
        answer = {"name": record.name, "sha256": file.sha256, "location": str(file.location)}
        if "to" in request:
            answer["files"] = [path.name for path in write_release_folder(record, request["to"])]
    except C2LError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
