"""Text that is not in UTF-8, told from what is no text."""

_MARKS = (b"\xff\xfe", b"\xfe\xff")


def other_encoding(head: bytes) -> str:
    """What to say of a file whose first bytes are UTF-16's byte order mark, as editors on Windows write it.

    Args:
        head: at least its first two bytes, if it has so many.

    Returns:
        Nothing where they are not.
    """
    return "UTF-16: save it as UTF-8, or use: iconv -f UTF-16 -t UTF-8" if head.startswith(_MARKS) else ""
