"""The errors that this package raises. `except C2LError` catches all of them.

Each message says what was expected, what was found, and what to do.
"""


class C2LError(Exception):
    """Base class. `exit_status` is the exit status of the command line."""

    exit_status = 2


class RadiographError(C2LError):
    """A file that cannot be read as a radiograph. The message names the file and the reason."""


class MachineError(RadiographError):
    """A file that cannot be read on this machine, whatever its content: disk failure, too little memory, no decoder."""


class WeightsNotFound(C2LError):
    """An unknown release, file, repository, revision or architecture. Retrying does not help."""


class WeightsCorrupted(C2LError):
    """A weight file with a wrong hash, format, keys or shapes."""


class HubRefused(C2LError):
    """The hub requires a token, or a token with access to the repository."""


class HubUnavailable(C2LError):
    """The hub was not reached or sent an incomplete file, and the cache has no copy. Retry later."""

    exit_status = 75  # EX_TEMPFAIL


class HubCacheError(C2LError):
    """The hub's cache on this machine cannot be written: the disk is full or read-only."""


class DatasetError(C2LError):
    """A data set or an image store whose files are not in the expected layout."""


class RecipeError(C2LError):
    """A pretraining recipe with an unknown key or an invalid value."""


class RunError(C2LError):
    """A run folder that may not be written, or a checkpoint that may not be resumed."""


class RunInterrupted(RunError):
    """A run that stopped on request, after writing its checkpoint. The exit status tells a scheduler to restart it."""

    exit_status = 75  # EX_TEMPFAIL
