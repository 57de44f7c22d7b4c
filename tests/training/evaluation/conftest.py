"""Image store of the probing tests, for the tests of evaluation."""

from ..probing.conftest import store

__all__ = ["store"]
