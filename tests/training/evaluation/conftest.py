"""The tests of evaluation use the image store of the probing tests."""

from ..probing.conftest import store

__all__ = ["store"]
