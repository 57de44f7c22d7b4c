"""Fine-tuning on labels: from a start to metrics on a test list that is looked at once."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import finetune
    from .settings import Settings

__all__ = ["Settings", "finetune"]


def __getattr__(name: str) -> Any:
    """A command's help reads the settings and is to come at once: the loop's imports wait until it is asked for."""
    if name == "Settings":
        from .settings import Settings

        return Settings
    if name == "finetune":
        from .loop import finetune

        return finetune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
