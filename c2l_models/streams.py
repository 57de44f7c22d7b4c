"""Output of the command line: readable in every encoding, and quiet when its reader has gone (`c2l … | head`)."""

import codecs
import os
import sys
from contextlib import suppress

PLAIN = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—−", "-"),
        **dict.fromkeys("─━═╌╍┄┅╴╶╸╺╼╾", "-"),
        **dict.fromkeys("│┃║╎╏┆┇╷╵╹╻", "|"),
        **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼╞╡╪╒╕╘╛┏┓┗┛┣┫┳┻╋┡┩╇", "+"),
        **dict.fromkeys("█▉▊▋▌▍▎▏▁▂▃▄▅▆▇", "#"),
        **{"…": "...", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "≈": "~", "→": "->", "•": "*", "·": "*"},
        **{"α": "alpha", "β": "beta", "γ": "gamma", "θ": "theta", "λ": "lambda", "µ": "u", "σ": "sigma", "τ": "tau"},
        **{"‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " ", "✓": "yes", "✗": "no", "°": " deg"},
    }
)
"""Signs of our own texts and tables, and their ASCII forms for a terminal that cannot show them."""
HANDLER = "c2l.readable"
CLOSED_PIPE = 141
"""Exit status of a program whose reader has gone, as a shell reports it: 128 + SIGPIPE."""


def make_printable() -> None:
    """Let stdout and stderr accept every character, in whatever encoding they have.

    A character that the encoding lacks is printed in ASCII: our own signs by `PLAIN`, others as escapes such as
    `\\u4e2d`. A byte of a file name that is not UTF-8 is printed as `\\xf6`.
    """
    codecs.register_error(HANDLER, _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            with suppress(OSError):  # its file descriptor was replaced by one that cannot seek
                stream.reconfigure(errors=HANDLER)


def drop_output() -> None:
    """Discard all further output, because nobody reads it; otherwise Python complains when it ends."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(sink, stream.fileno())


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error (`codecs.register_error`): the replacement, and the position to continue from."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name, as os.fsdecode represents it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.translate(PLAIN).encode("ascii", "backslashreplace").decode("ascii")
