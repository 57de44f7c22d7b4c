"""Data sets as distributed: one adapter per data set, a module with `records(root) -> list[Record]`."""
