"""Where a dataset comes from: a folder, or the zip file as it was downloaded, whose names and sizes are not trusted."""

from __future__ import annotations

import contextlib
import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jdm.data.raster import one_line, sniff
from jdm.data.raw_layout import few
from jdm.errors import DataError, JdmError

MAX_MEMBERS = 2_000_000
MAX_RATIO = 200
"""Unpacked to packed bytes of a whole archive of more than `SMALL`; more is taken for a decompression bomb."""
SMALL = 2**30
_CHUNK = 2**20


@dataclass(frozen=True)
class Source:
    """A dataset to be read."""

    given: Path
    """What the user named."""
    root: Path
    """Folder with its files; of an archive, a temporary one."""

    def shown(self, text: str) -> str:
        """`text` with paths as the user knows them."""
        return text if self.root == self.given else text.replace(str(self.root), str(self.given))


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A folder as it is, or a zip file unpacked into a temporary folder that goes when the block ends.

    Errors raised in the block name the archive instead of that folder.
    Raises: DataError if it is neither, or if the archive is damaged, encrypted, or has members that would lie outside
        it, links, or more content than it should or fits on the disk.
    """
    if path.is_dir():
        yield Source(path, path)
        return
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; expected a folder or a zip file; correct the path")
    kind = sniff(path)
    if kind != "zip":
        raise DataError(f"{path}: is of kind {kind}; expected a folder or a zip file; unpack it and name the folder")
    with tempfile.TemporaryDirectory(prefix="jdm-convert-") as temporary:
        source = Source(path, Path(temporary).resolve() / path.stem)  # some layouts are told by the name on top
        source.root.mkdir()
        try:
            _unpack(path, source.root)
            _unpack_inner(source.root)
            yield source
        except JdmError as error:
            raise type(error)(source.shown(str(error))) from None


def _unpack(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members, target)
            for member in members:
                _extract(archive, member, target)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: cannot be unpacked ({type(error).__name__}: {one_line(error)}); expected a whole zip file and "
            f"room for it in {tempfile.gettempdir()}; download it again, or set TMPDIR to a larger disk"
        ) from None


def _check_members(path: Path, members: list[zipfile.ZipInfo], target: Path) -> None:
    """Refuse an archive before anything of it is written."""
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path}: has {len(members)} members; expected at most {MAX_MEMBERS}; unpack it yourself")
    outside = [m.filename for m in members if _leaves(m.filename)]
    if outside:
        raise DataError(
            f"{path}: {len(outside)} members lie outside the archive ({_few(outside)}); expected relative paths "
            "without '..'; get the archive from its publisher"
        )
    special = [m.filename for m in members if stat.S_IFMT(m.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)]
    if special:
        raise DataError(
            f"{path}: {len(special)} members are links or devices ({_few(special)}); expected plain files; unpack "
            "it yourself and name the folder"
        )
    names = [m.filename for m in members]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1}) if len(names) < 10_000 else ["one of many"]
        raise DataError(f"{path}: names occur twice ({_few(twice)}); expected each once; download it again")
    encrypted = [m.filename for m in members if m.flag_bits & 1]
    if encrypted:
        raise DataError(f"{path}: is encrypted ({_few(encrypted)}); expected an open archive; unpack it yourself")
    _check_size(path, sum(m.file_size for m in members), target)


def _check_size(path: Path, size: int, target: Path) -> None:
    packed, free = path.stat().st_size, shutil.disk_usage(target).free
    if size > SMALL and size > MAX_RATIO * packed:
        raise DataError(
            f"{path}: announces {size} bytes out of {packed}; expected at most {MAX_RATIO} times as many (a "
            "decompression bomb); get the archive from its publisher, or unpack it yourself"
        )
    if size > free:
        raise DataError(
            f"{path}: needs {size} bytes unpacked, {free} are free in {tempfile.gettempdir()}; unpack it elsewhere and "
            "name the folder, or set TMPDIR to a larger disk"
        )


def _few(names: list[str]) -> str:
    """Names that a stranger chose, fit for one line."""
    return few([ascii(name[:60]) for name in names], 5)


def _leaves(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member, never more than its announced size: a header that lies ends in a checksum error."""
    path = target / member.filename.replace("\\", "/")
    if member.is_dir() or member.filename.endswith("\\"):
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, path.open("xb") as file:
        shutil.copyfileobj(packed, file, _CHUNK)


def _unpack_inner(root: Path) -> None:
    """Unpack archives within an archive, as some sites pack them, each into a folder of its name; one level deep."""
    for path in [p for p in visible(root) if p.suffix.lower() == ".zip"]:
        folder = path.with_suffix("")
        folder.mkdir(exist_ok=True)
        _unpack(path, folder)
        path.unlink()


def visible(root: Path, folders: bool = False) -> list[Path]:
    """Files below `root` (or folders, with `root`), nearest first, without hidden ones and what macOS adds."""
    found: list[Path] = [root] if folders else []
    level, seen = [root], {root.resolve()}
    while level:
        inner: list[Path] = []
        for folder in level:
            for path in sorted(folder.iterdir()):
                if path.name.startswith(".") or path.name == "__MACOSX":
                    continue
                if path.is_dir():
                    if path.resolve() not in seen:  # a link may lead back up
                        seen.add(path.resolve())
                        inner.append(path)
                elif not folders:
                    found.append(path)
        found += inner if folders else []
        level = inner
    return found


def child(folder: Path, *names: str) -> Path | None:
    """The folder within `folder` that has one of these names, upper and lower case not counted."""
    wanted = [name.lower() for name in names]
    inner = {f.name.lower(): f for f in sorted(folder.iterdir()) if f.is_dir()}
    return next((inner[name] for name in wanted if name in inner), None)


def find_with(root: Path, *inner: tuple[str, ...]) -> list[tuple[Path, ...]]:
    """Folders below `root`, nearest first, that hold one folder of each group of names; the inner folders of each."""
    found = []
    for folder in visible(root, folders=True):
        parts = [child(folder, *names) for names in inner]
        if all(parts):
            found.append(tuple(p for p in parts if p))
    return found


def missing_layout(root: Path, expected: str) -> DataError:
    """The error for a source in which nothing of the expected layout is found."""
    seen = sorted(f.name for f in root.iterdir() if not f.name.startswith("."))
    return DataError(
        f"{root}: expected {expected}; found {few(seen, 8) or 'nothing'}; name the folder or zip file of the dataset"
    )
