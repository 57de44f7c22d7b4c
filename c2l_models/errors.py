"""What can go wrong, as a small family: catch `C2LError` for all of it.

Every message says what was found, what was wanted, and what to do next.
"""


class C2LError(Exception):
    """Anything that this package refuses to do. `exit_status` is the command line's."""

    exit_status = 2


class RadiographError(C2LError):
    """A file that cannot be read as a radiograph; the message names the file and what is wrong with it."""


class WeightsNotFound(C2LError):
    """No such release, file, repository, revision or architecture; asking again does not help."""


class WeightsCorrupted(C2LError):
    """Bytes that are not the weights they should be: wrong hash, format, keys or shapes."""


class HubRefused(C2LError):
    """The hub wants a token, or one that may read the repository."""


class HubUnavailable(C2LError):
    """The hub could not be reached or did not send the file whole, and the cache does not have it: try again later."""

    exit_status = 75  # EX_TEMPFAIL


class HubCacheError(C2LError):
    """The hub's cache on this machine cannot be written: its disk is full, or read-only."""


class DatasetError(C2LError):
    """A data set or an image store that is not laid out as its distribution, or `c2l prepare`, lays it out."""


class RecipeError(C2LError):
    """A pretraining recipe with an unknown key, or a value outside what it may be."""


class RunError(C2LError):
    """A run folder that may not be written, or a checkpoint that may not be resumed."""


class RunInterrupted(RunError):
    """A run that was asked to stop, and has; its checkpoint is written. A scheduler starts it again on this status."""

    exit_status = 75  # EX_TEMPFAIL: a failure that goes away by trying again
