"""The `c2l` commands that work without the training pipeline: functions whose flags are their arguments."""

from collections.abc import Callable
from typing import Any

from .films import embed, search
from .machine import doctor
from .releases import check_leakage, download, info, list_, verify
from .weight_files import convert, export, publish

COMMANDS: dict[str, Callable[..., Any]] = {
    "doctor": doctor,
    "list": list_,
    "info": info,
    "verify": verify,
    "download": download,
    "publish": publish,
    "check-leakage": check_leakage,
    "embed": embed,
    "search": search,
    "convert": convert,
    "export": export,
}
