"""Byte order marks: UTF-8's is removed, UTF-16's is reported."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark that editors on Windows put before a text in UTF-8."""

_MARKS = (b"\xff\xfe", b"\xfe\xff")


def other_encoding(head: bytes) -> str:
    """Message for a file whose first bytes are UTF-16's byte order mark, as editors on Windows write it.

    Args:
        head: at least its first two bytes, if it has so many.

    Returns:
        Nothing where they are not.
    """
    return "UTF-16: save it as UTF-8, or use: iconv -f UTF-16 -t UTF-8" if head.startswith(_MARKS) else ""


def without_bom(text: bytes) -> bytes:
    """Remove the byte order mark before a text."""
    return text.removeprefix(BOM)
