"""Run `c2l` command lines in one process; print the exit status, stdout and stderr of each as a line of JSON.

Usage: consumer_half.py ROOT MODE. ROOT holds `c2l_models`. MODE "blocked" makes `c2l_models.training` impossible to
import; MODE "present" leaves it as it is. Standard input holds one command line per line, as a JSON list.
"""

import contextlib
import io
import json
import sys

root, mode = sys.argv[1:]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, root)
if mode == "blocked":
    sys.modules["c2l_models.training"] = None  # type: ignore[assignment]

from c2l_models import cli  # noqa: E402

assert cli.__file__.startswith(root), cli.__file__
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(json.loads(line))
        except SystemExit as stop:
            status = stop.code or 0
    print(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}), flush=True)

imported = [name for name, module in sys.modules.items() if "training" in name.split(".")[:2] and module]
assert not imported, imported
