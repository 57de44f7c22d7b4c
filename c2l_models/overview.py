"""The text of `c2l --help`: what the tool does, and its commands, grouped by user."""

import shutil
from textwrap import TextWrapper

from .commands import COMMANDS
from .optional_training import HOW_TO_GET_TRAINING, TRAINING_COMMANDS, has_training

PURPOSE = (
    "Networks pretrained on radiographs: compute the features of your films, find similar films, and load the weights "
    "in Python. The pipeline that trained the networks is included."
)
GROUPS = {
    "Use the networks": "list info embed search atlas download export convert verify doctor check-leakage demo",
    "Train and measure networks": (
        "prepare join pretrain curves average slim probe compare few-shot finetune detect look reproduce"
    ),
    "Maintain the releases": "release publish benchmark",
}
"""The commands, most needed first."""
OPTIONS = {
    "--help": "Show this text; after a command, its options.",
    "--quiet": "Show no progress, before or after a command. Without it, progress is shown if stderr is a terminal.",
    "--version": "Print the version.",
}


def overview() -> str:
    """The text, as wide as the terminal."""
    lines = {name: (function.__doc__ or "").splitlines()[0] for name, function in COMMANDS.items()} | TRAINING_COMMANDS
    width = min(shutil.get_terminal_size().columns, 120)
    text = TextWrapper(width, break_on_hyphens=False)
    parts = ["usage: c2l COMMAND … [--quiet]", text.fill(PURPOSE)]
    if not has_training():
        needing = ", ".join(TRAINING_COMMANDS)
        missing = f"These commands need the training pipeline, which is not installed: {needing}. {HOW_TO_GET_TRAINING}"
        parts.append(text.fill(missing))
    for title, names in GROUPS.items():
        parts.append(f"{title}:\n" + "\n".join(_entry(name, lines[name], width) for name in names.split()))
    parts.append("Options:\n" + "\n".join(_entry(name, line, width) for name, line in OPTIONS.items()))
    parts.append(text.fill("`c2l COMMAND --help` explains a command. Begin with `c2l demo`, or `c2l embed FOLDER`."))
    return "\n\n".join(parts)


def _entry(name: str, line: str, width: int) -> str:
    return TextWrapper(width, initial_indent=f"  {name:15}", subsequent_indent=" " * 17, break_on_hyphens=False).fill(
        line
    )
