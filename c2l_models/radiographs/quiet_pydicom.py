"""Keep the text of DICOM files out of warnings and logs: pydicom quotes elements, which may name a patient."""

import logging
import re
import warnings

SOURCES = re.compile(
    r"pydicom\b|pylibjpeg|openjpeg|libjpeg|c2l_models\.(radiographs\.dicom|training\.datasets\.dicom_)"
)
FILTER = ("ignore", None, Warning, SOURCES, 0)


def quiet_pydicom() -> None:
    """Ignore warnings and log lines of pydicom and its decoders from now on, in this whole process.

    A filter for one call, `warnings.catch_warnings`, would not work: it is shared by the threads that read files.
    """
    if FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=SOURCES.pattern)
    for name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
