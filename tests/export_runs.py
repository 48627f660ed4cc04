"""A small export, repeated by many tests."""

from pathlib import Path

from jdm.export.pairs import export
from jdm.export.request import ExportRequest

REQUEST = ExportRequest(
    id=521, name="Stripes_syn", count=5, canvas_size=(16, 24), steps=3, batch_size=2, margin=100.0, seed=4
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def exported(checkpoint, real, request=REQUEST, **options) -> dict[str, bytes]:
    """Export anew and return the bytes."""
    done = export(checkpoint, real, request, overwrite=True, **options)
    assert done.finished and done.folder.name == f"Dataset{request.id}_{request.name}"
    return contents(done.folder)
