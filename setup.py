"""Build distributions whose bytes depend only on their content. The metadata is in pyproject.toml."""

import gzip
import os
import tarfile
import time
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.sdist import sdist


class PlainModes(bdist_wheel):
    """Give every file the same mode, because the archive stores the modes of the checkout."""

    def write_wheelfile(self, *arguments: str, **options: str) -> None:
        """Write the last file before archiving, then set all modes."""
        super().write_wheelfile(*arguments, **options)
        for path in Path(self.bdist_dir).rglob("*"):
            if path.is_file():
                path.chmod(0o644)


class PlainArchive(sdist):
    """Write the archive without the times, owners and modes of the checkout, in the order of names."""

    def make_archive(self, base_name: str, format: str, base_dir: str, **_: object) -> str:
        """Archive the folder `base_dir` as `base_name`.tar.gz. Returns this file."""
        when = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime, member.mode = when, 0o755 if member.isdir() else 0o644
            member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
            return member

        file = Path(f"{base_name}.tar.gz")
        with (
            file.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=when) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for path in sorted([Path(base_dir), *Path(base_dir).rglob("*")]):
                archive.add(path, recursive=False, filter=plain)
        return str(file)


setup(cmdclass={"bdist_wheel": PlainModes, "sdist": PlainArchive})
