"""The entry point of `c2l`: run one command, and print an error as one line.

`commands/` holds the commands that work without the training pipeline, `training/commands/` holds the others.
"""

import atexit
import difflib
import errno
import gc
import os
import sys
from typing import NoReturn

import tyro

from .commands import COMMANDS
from .errors import C2LError
from .optional_training import TRAINING_COMMANDS, require_training
from .overview import overview
from .progress import be_quiet
from .streams import CLOSED_PIPE, drop_output, make_printable

FULL_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT}
DISK_ERRORS = FULL_DISK_ERRORS | {errno.EROFS}
PATH_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EBUSY}
TRAINING_LIBRARIES = {"matplotlib", "sklearn", "tensorboard", "torchmetrics"}


def main(arguments: list[str] | None = None) -> None:
    """Run one `c2l` command. A C2LError is printed as one line; its `exit_status` is 2 by default."""
    make_printable()
    atexit.register(gc.freeze)  # or Python's exit would search all of torch's objects for garbage: about a second
    try:
        try:
            _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be handled
    except BrokenPipeError:  # its reader has closed it: `c2l … | head`
        drop_output()
        sys.exit(CLOSED_PIPE)


def _run(arguments: list[str]) -> None:
    if "--quiet" in arguments:
        be_quiet()
        arguments = [argument for argument in arguments if argument != "--quiet"]
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # two displays would overwrite each other
    try:
        _run_command(arguments)
    except C2LError as error:
        _fail(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_LIBRARIES:
            raise
        _fail(f"this command needs {error.name}: pip install 'c2l-models[train]'")
    except OSError as error:
        if error.errno not in DISK_ERRORS | PATH_ERRORS or (not error.filename and error.errno in PATH_ERRORS):
            raise
        todo = "free some space" if error.errno in FULL_DISK_ERRORS else "correct the path or its permissions"
        _fail(f"{error.filename or 'the disk'}: {error.strerror}; {todo}, then run the same command again")
    except KeyboardInterrupt:
        sys.exit(130)


def _run_command(arguments: list[str]) -> None:
    name, *rest = arguments or [""]
    if name == "--version":
        from . import __version__

        print(f"c2l-models {__version__}")
    elif name in ("", "-h", "--help", "help"):
        print(overview())
        sys.exit(0 if name else 2)
    elif name in COMMANDS:
        tyro.cli(COMMANDS[name], prog=f"c2l {name}", args=rest)
    elif name in TRAINING_COMMANDS:
        _run_training_command(name, rest)
    else:
        similar = difflib.get_close_matches(name, [*COMMANDS, *TRAINING_COMMANDS], 1)
        hint = f"did you mean `c2l {similar[0]}`? " if similar else ""
        raise C2LError(f"expected a command, found {name!r}; {hint}`c2l --help` lists the commands")


def _run_training_command(name: str, arguments: list[str]) -> None:
    require_training(f"`c2l {name}`")
    from .training.commands import COMMANDS, PARSE_OWN_ARGUMENTS

    if name in PARSE_OWN_ARGUMENTS:
        COMMANDS[name](arguments)
    else:
        tyro.cli(COMMANDS[name], prog=f"c2l {name}", args=arguments)


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"c2l: {message}", file=sys.stderr)
    sys.exit(status)
