"""Of what stops the reading of a film: is it the file, or this machine?"""

import errno

from ..errors import RadiographError

OF_THE_FILE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ),
    *(errno.EACCES, errno.EPERM, errno.ENXIO),
)
"""Errors of the operating system that say something of the file; any other is the machine's."""


class MachineError(RadiographError):
    """A file that this machine cannot read now, whatever it holds: a failing disk, want of memory, no decoder."""


def system_error(what: str, error: OSError) -> RadiographError:
    """The operating system's error as one of the file or of the machine; `what` says what it forbade."""
    kind = RadiographError if error.errno in OF_THE_FILE else MachineError
    return kind(f"{what}: {error.strerror}")
