"""Build wheels whose bytes depend only on their content. The metadata is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class PlainModes(bdist_wheel):
    """Give every file the same mode, because the archive stores the modes of the checkout."""

    def write_wheelfile(self, *arguments: str, **options: str) -> None:
        """Write the last file before archiving, then set all modes."""
        super().write_wheelfile(*arguments, **options)
        for path in Path(self.bdist_dir).rglob("*"):
            if path.is_file():
                path.chmod(0o644)


setup(cmdclass={"bdist_wheel": PlainModes})
