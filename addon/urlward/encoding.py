"""Marks before a text: that of UTF-8, which says nothing, and UTF-16's, which says that it cannot be read."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark that editors on Windows put before a text in UTF-8."""

_MARKS = (b"\xff\xfe", b"\xfe\xff")


def other_encoding(head: bytes) -> str:
    """What to say of a file whose first bytes are UTF-16's byte order mark, as editors on Windows write it.

    Args:
        head: at least its first two bytes, if it has so many.

    Returns:
        Nothing where they are not.
    """
    return "UTF-16: save it as UTF-8, or use: iconv -f UTF-16 -t UTF-8" if head.startswith(_MARKS) else ""


def without_bom(text: bytes) -> bytes:
    """A text without the byte order mark before it."""
    return text.removeprefix(BOM)
