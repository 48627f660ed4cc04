"""Safe reading of XML files: no external entities and no entity expansion."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from jdm.data.raster import one_line
from jdm.errors import DataError

MAX_BYTES = 2**27


def read_xml(path: Path, root: str) -> Element:
    """The root element; names have no namespace.

    Args:
        root: expected name of the root element.
    Raises: DataError if the file is missing, too large, not XML, declares entities, or has another root.
    """
    from defusedxml import DefusedXmlException, ElementTree

    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: has {size} bytes; expected an annotation of at most {MAX_BYTES}; cut it")
        element = ElementTree.parse(path, forbid_dtd=True).getroot()
        if element is None:
            raise ValueError("it is empty")
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: declares entities or a document type ({type(error).__name__}); expected plain XML; get the "
            "original file"
        ) from None
    except (OSError, ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: cannot be read as XML ({one_line(error)}); get the original file") from None
    for inner in element.iter():
        inner.tag = inner.tag.rpartition("}")[2]
    if element.tag != root:
        raise DataError(
            f"{path}: its root is {element.tag[:60]!r}; expected {root!r}; get the annotation of this image"
        )
    return element
