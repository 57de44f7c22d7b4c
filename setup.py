"""Makes the wheel's bytes a matter of its content: pyproject.toml says all the rest."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class PlainModes(bdist_wheel):
    """Every file readable by all, whatever the umask and the checkout's modes: the archive keeps modes."""

    def write_wheelfile(self, *arguments: str, **options: str) -> None:
        """The last file that is written before all are archived."""
        super().write_wheelfile(*arguments, **options)
        for path in Path(self.bdist_dir).rglob("*"):
            if path.is_file():
                path.chmod(0o644)


setup(cmdclass={"bdist_wheel": PlainModes})
