"""The entry point of `c2l`: run one command, and print an error as one line.

`commands/` holds the commands that work without the training pipeline, `training/commands/` holds the others.
"""

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

import tyro

from .commands import COMMANDS
from .errors import C2LError
from .optional_training import HOW_TO_GET_TRAINING, TRAINING_COMMANDS, has_training, require_training
from .streams import CLOSED_PIPE, drop_output, make_printable

FULL_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT}
DISK_ERRORS = FULL_DISK_ERRORS | {errno.EROFS}
PATH_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EBUSY}
TRAINING_LIBRARIES = {"matplotlib", "sklearn", "tensorboard", "torchmetrics"}


def main(arguments: list[str] | None = None) -> None:
    """Run one `c2l` command. A C2LError is printed as one line; its `exit_status` is 2 by default."""
    make_printable()
    try:
        try:
            _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be handled
    except BrokenPipeError:  # its reader has closed it: `c2l … | head`
        drop_output()
        sys.exit(CLOSED_PIPE)


def _run(arguments: list[str]) -> None:
    try:
        if arguments == ["--version"]:
            from . import __version__

            print(f"c2l-models {__version__}")
        elif arguments and arguments[0] in TRAINING_COMMANDS:
            _run_training_command(*arguments)
        else:
            listed = COMMANDS | {name: _listed_only(line) for name, line in TRAINING_COMMANDS.items()}
            tyro.extras.subcommand_cli_from_dict(listed, prog="c2l", args=arguments, description=_description())
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


def _run_training_command(name: str, *arguments: str) -> None:
    require_training(f"`c2l {name}`")
    from .training.commands import COMMANDS, PARSE_OWN_ARGUMENTS

    if name in PARSE_OWN_ARGUMENTS:
        COMMANDS[name](list(arguments))
    else:
        tyro.cli(COMMANDS[name], prog=f"c2l {name}", args=arguments)


def _listed_only(help_line: str) -> Callable[[], None]:
    """Return a command that does nothing, for the list in `c2l --help`; `main` runs the real command."""

    def command() -> None: ...

    command.__doc__ = help_line
    return command


def _description() -> str:
    text = "Radiograph-pretrained backbones: load, check, embed, search, export, and pretrain."
    if not has_training():
        needing = ", ".join(TRAINING_COMMANDS)
        text += f" These commands need the training pipeline, which is not installed: {needing}. {HOW_TO_GET_TRAINING}"
    return text


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"c2l: {message}", file=sys.stderr)
    sys.exit(status)
