"""The source of a dataset: a folder, or the zip or tar file as downloaded."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset_conversion.archives import bare_name, unpack
from jdm.data.raw_layout import few
from jdm.errors import DataError, JdmError


@dataclass(frozen=True)
class Source:
    """A dataset to be read."""

    given: Path
    """The path given by the user."""
    root: Path
    """Folder with its files; temporary for an archive."""

    def shown(self, text: str) -> str:
        """`text` with temporary paths replaced by the user's."""
        return text if self.root == self.given else text.replace(str(self.root), str(self.given))


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A folder, or a zip or tar file unpacked into a temporary folder that is removed when the block ends.

    Errors raised in the block name the archive instead of the temporary folder.
    Raises: DataError if it is neither, or as `unpack`.
    """
    if path.is_dir():
        yield Source(path, path)
        return
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; expected a folder, or a zip or tar file; correct the path")
    with tempfile.TemporaryDirectory(prefix="jdm-convert-") as temporary:
        source = Source(path, Path(temporary).resolve() / bare_name(path))  # some layouts are known by the top folder
        source.root.mkdir()
        try:
            unpack(path, source.root)
            _unpack_inner(source.root)
            yield source
        except JdmError as error:
            raise type(error)(source.shown(str(error))) from None


def _unpack_inner(root: Path) -> None:
    """Unpack archives inside an archive, each into a folder, one level deep; some sites nest them."""
    for path in [p for p in visible(root) if p.suffix.lower() in (".zip", ".tar")]:
        folder = path.with_suffix("")
        folder.mkdir(exist_ok=True)
        unpack(path, folder)
        path.unlink()


def visible(root: Path, folders: bool = False) -> list[Path]:
    """Files below `root` (or folders, including `root`), nearest first, without hidden and macOS files."""
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
    """The folder within `folder` that has one of these names, ignoring case."""
    wanted = [name.lower() for name in names]
    inner = {f.name.lower(): f for f in sorted(folder.iterdir()) if f.is_dir()}
    return next((inner[name] for name in wanted if name in inner), None)


def find_with(root: Path, *inner: tuple[str, ...]) -> list[tuple[Path, ...]]:
    """For each folder that holds one folder of every group of names, these inner folders; nearest to `root` first."""
    found = []
    for folder in visible(root, folders=True):
        parts = [child(folder, *names) for names in inner]
        if all(parts):
            found.append(tuple(p for p in parts if p))
    return found


def missing_layout(root: Path, expected: str) -> DataError:
    """The error for a source without the expected layout."""
    seen = sorted(f.name for f in root.iterdir() if not f.name.startswith("."))
    return DataError(
        f"{root}: expected {expected}; found {few(seen, 8) or 'nothing'}; name the folder or archive of the dataset"
    )
