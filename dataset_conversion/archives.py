"""Unpacks untrusted zip and tar files; names and sizes are checked before anything is written."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from jdm.data.raster import one_line, sniff
from jdm.data.raw_layout import few
from jdm.errors import DataError

ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
MAX_MEMBERS = 2_000_000
MAX_RATIO = 200
"""Largest ratio of unpacked to packed size above `SMALL` bytes; more is treated as a decompression bomb."""
SMALL = 2**30
_CHUNK = 2**20
_LONGEST_READ = 2**22
"""Most bytes read from a tar file at once, because headers can declare any length."""
_FREE_HEADERS, _PACKED_HEADER = 10_000, 16
"""Headers allowed in any archive, and packed bytes required for each further one, against bombs of headers."""
_BLOCK = 512
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
    ValueError, OverflowError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    folder: bool = False
    special: bool = False
    """Neither a plain file nor a folder: a link, a device, a sparse file."""
    encrypted: bool = False


def bare_name(path: Path) -> str:
    """The name of a folder or archive, without the archive's ending."""
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def kind_of(path: Path) -> str:
    """zip, tar, tar.gz, or another kind of file. Raises: DataError as `sniff`."""
    kind = sniff(path)
    return "tar.gz" if kind == "gzip" and path.name.lower().endswith((".tar.gz", ".tgz")) else kind


def unpack(path: Path, target: Path) -> None:
    """Unpack a zip or tar file into `target`.

    Raises: DataError if it is not a zip or tar file, is damaged or encrypted, holds links or paths outside the target,
        or would unpack to a suspicious size or one that does not fit on the disk.
    """
    kind = kind_of(path)
    if kind not in ("zip", "tar", "tar.gz"):
        raise DataError(
            f"{path}: is of kind {kind}; expected a folder, or a zip or tar file; unpack it and name the folder"
        )
    try:
        if kind == "zip":
            _unpack_zip(path, target)
        else:
            _unpack_tar(path, target, compressed=kind == "tar.gz")
    except _DAMAGE as error:
        raise DataError(
            f"{path}: cannot be unpacked ({type(error).__name__}: {one_line(error)}); expected a whole {kind} file and "
            f"free space in {tempfile.gettempdir()}; download it again, or set TMPDIR to a larger disk"
        ) from None


def _unpack_zip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        found = archive.infolist()
        members = [
            _Member(
                m.filename, m.file_size, m.filename.endswith(("/", "\\")),
                stat.S_IFMT(m.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR), bool(m.flag_bits & 1),
            )
            for m in found
        ]  # fmt: skip
        _check_members(path, members, target)
        for info, member in zip(found, members, strict=True):
            _extract(member, lambda info=info: archive.open(info), target)


def _unpack_tar(path: Path, target: Path, compressed: bool) -> None:
    with (
        path.open("rb") as file,
        gzip.open(file) if compressed else file as content,
        tarfile.open(fileobj=_Bounded(content), mode="r:") as archive,  # type: ignore[arg-type]
    ):
        found: list[tuple[tarfile.TarInfo, _Member]] = []
        size = behind = 0
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile would keep all members  # pyright: ignore[reportAttributeAccessIssue]
            if info.size < 0 or info.offset < behind:
                raise tarfile.ReadError("a header points back")
            behind = info.offset_data
            special = not (info.isreg() or info.isdir()) or info.issparse()
            if info.name not in ("", "."):
                found.append((info, _Member(info.name, info.size, info.isdir(), special)))
            size += info.size
            _check_size(path, size, target)  # before a bomb's content is decompressed
            _check_count(path, len(found))
        content.seek(archive.offset)
        if content.read(_BLOCK) != bytes(_BLOCK):  # tarfile stops silently there
            raise tarfile.ReadError("a header is damaged, or the end is missing")
        _check_members(path, [member for _, member in found], target)
        for info, member in found:
            _extract(member, lambda info=info: archive.extractfile(info), target)


class _Bounded(io.RawIOBase):
    """A file that refuses reads larger than a valid archive needs."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header announces {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _check_count(path: Path, count: int) -> None:
    most = min(MAX_MEMBERS, max(_FREE_HEADERS, path.stat().st_size // _PACKED_HEADER))
    if count > most:
        raise DataError(f"{path}: has more than {most} members; expected at most that many; unpack it yourself")


def _check_members(path: Path, members: Sequence[_Member], target: Path) -> None:
    """Refuse a bad archive before anything is written."""
    _check_count(path, len(members))
    outside = [m.name for m in members if _leaves(m.name)]
    if outside:
        raise DataError(
            f"{path}: {len(outside)} members lie outside the archive ({_few(outside)}); expected relative paths "
            "without '..'; get the archive from its publisher"
        )
    special = [m.name for m in members if m.special]
    if special:
        raise DataError(
            f"{path}: {len(special)} members are links or devices ({_few(special)}); expected plain files; unpack "
            "it yourself and name the folder"
        )
    names = [str(PurePosixPath(m.name)) for m in members if not m.folder]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1}) if len(names) < 10_000 else ["one of many"]
        raise DataError(f"{path}: names occur twice ({_few(twice)}); expected each once; download it again")
    encrypted = [m.name for m in members if m.encrypted]
    if encrypted:
        raise DataError(f"{path}: is encrypted ({_few(encrypted)}); expected an open archive; unpack it yourself")
    _check_size(path, sum(m.size for m in members), target)


def _check_size(path: Path, size: int, target: Path) -> None:
    packed, free = path.stat().st_size, shutil.disk_usage(target).free
    if size > SMALL and size > MAX_RATIO * packed:
        raise DataError(
            f"{path}: would unpack from {packed} to {size} bytes; expected at most {MAX_RATIO} times the size (is it a "
            "decompression bomb?); get the archive from its publisher, or unpack it yourself"
        )
    if size > free:
        raise DataError(
            f"{path}: needs {size} bytes unpacked, but {free} are free in {tempfile.gettempdir()}; unpack it elsewhere "
            "and name the folder, or set TMPDIR to a larger disk"
        )


def _few(names: list[str]) -> str:
    """Untrusted names, shortened to fit one line."""
    return few([ascii(name[:60]) for name in names], 5)


def _leaves(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name


def _extract(member: _Member, opened: Callable[[], object], target: Path) -> None:
    """Write one member, at most its declared size; a wrong size in the header is an error."""
    path = target / member.name.replace("\\", "/")
    if member.folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened() as packed, path.open("xb") as file:  # type: ignore[attr-defined]
        shutil.copyfileobj(packed, file, _CHUNK)
