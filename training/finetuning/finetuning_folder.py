"""Files of a fine-tuning run's folder: settings.json and log.jsonl."""

import json
from pathlib import Path
from typing import Any

from c2l_models.errors import RunError
from c2l_models.files import write_atomically

from ..recipe_files import merged
from ..run_files.identity import check_same_settings
from ..run_files.run_lock import names_in
from .settings import Settings

SETTINGS, LOG = "settings.json", "log.jsonl"


def open_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Write settings.json to a new run's folder, or check that the folder holds the same run.

    Args:
        folder: the run's folder, which exists; see `locked_run_folder`.
        identity: all settings and inputs of the run, as JSON values.

    Raises:
        RunError: the folder holds another run, whose settings that differ are named, or other files.
    """
    file = folder / SETTINGS
    if file.is_file():
        saved = json.loads(file.read_text(encoding="utf-8"))
        # A setting that is newer than the run has its default, which keeps what earlier versions computed.
        earlier = saved | {"settings": merged(Settings().to_dict(), saved["settings"])}
        check_same_settings(folder, earlier, identity)
        return
    if names_in(folder):
        raise RunError(f"{folder}: expected a run's {SETTINGS}, found only other files; choose another folder")
    write_atomically(file, (json.dumps(identity, indent=2) + "\n").encode())


def write_log(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Rewrite log.jsonl, one line per epoch, so that a resumed run logs each epoch once."""
    write_atomically(folder / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())
