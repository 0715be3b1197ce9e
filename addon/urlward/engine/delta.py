"""Deltas between artifacts: the new one, compressed with the old one as zstd's prefix.

`make_delta` is for the list body, who has both artifacts; `apply_delta` for the provider, who has the old
one and gets the very bytes of the new one.

Layout of a ``.delta`` file, all numbers little-endian:

======  =====  =========================================================================
offset  bytes  content
======  =====  =========================================================================
0       8      magic ``URLWDLT\\n``
8       2      format version (2)
10      6      zeros
16      8      size of the new artifact
24      8      key id
32      16     checksum of the old artifact
48      ...    a zstd frame (RFC 8878), sealed under the key
======  =====  =========================================================================

The frame holds the new artifact's *form*, and its prefix is the old one's: header, section table and
sections, where what follows an added row is what it was without it. So ends are lengths or gaps, shapes that
the old artifact has keep its numbers, and nothing is sealed. The frame is sealed as a whole, because a form
has addresses and CRC-32 values as they are.
"""

import json
import struct
import sys
from array import array
from collections.abc import Buffer, Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, compress, pairwise
from operator import sub
from typing import Any

from urlward.engine.artifact import (
    ALWAYS,
    HEADER_SIZE,
    Artifact,
    Section,
    check_key,
    pack,
    parse,
    section_table,
    unpack,
)
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError
from urlward.engine.perceptual import seal_records, unseal_records
from urlward.engine.record import Shape

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 2
MOST = 1 << 32
"""Bytes that an artifact may have to be made by a delta."""

WORTH = 0.5
"""Share of the new artifact's bytes beyond which that is better fetched itself."""

COMPRESSED = 100
"""Times its own size that a delta may add to the old artifact: of what is new, most is digests."""

_MAGIC = b"URLWDLT\n"
_HEADER = struct.Struct("<8sH6xQ8s16s")
_COUNT = slice(12, 16)
"""Where an artifact's header has its number of sections."""

_COUNTS = (ALWAYS, len(Section))
"""Numbers of sections that an artifact can have: without files, and with."""

_LEVEL = 9  # a third less than level 3 in the same time; higher ones take longer for little

_CONTRADICTIONS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RecursionError,
    ArtifactError,
    zstd.ZstdError,
)
"""Exceptions that contradictory bytes lead to; the checksum finds what goes unnoticed."""


type Told = Callable[[str, float], object]
"""Called with what is being done and the share of it that is, from 0 to 1."""

_CHUNK = 1 << 22
"""Bytes that are compressed between two times that it is called."""


def make_delta(old: Artifact, new: Artifact, key: Key, progress: Told = lambda *_: None) -> bytes:
    """Make the delta from one artifact to another.

    Takes some seconds at a million entries, and about ten times as much memory as an artifact has bytes.

    Args:
        old: the artifact to be replaced.
        new: the one to come.
        key: that both were compiled under.
        progress: told how far it is.

    Raises:
        ArtifactError: they are the same, have so little in common that a delta is not worth it, or one of
            them was compiled under another key.
    """
    for artifact in (old, new):
        check_key(artifact.header, key)
        if len(artifact.sections) not in _COUNTS:
            raise ArtifactError("no delta: an artifact has sections that this release does not know")
    if old.header.checksum == new.header.checksum:
        raise ArtifactError("no delta: both artifacts are the same")
    try:
        forms: list[bytes] = []
        for artifact in (old, new):
            progress("reading", len(forms) / 2)
            forms.append(_form(artifact, old, key))
    except _CONTRADICTIONS as e:
        raise ArtifactError("no delta: an artifact contradicts itself") from e
    prefix, form = forms
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
        zstd.CompressionParameter.window_log: _window(old.header.size + new.header.size),
    }
    frame = _compressed(form, prefix, options, progress)
    head = _HEADER.pack(_MAGIC, VERSION, new.header.size, key.id, old.header.checksum)
    delta = head + key.seal(frame)
    if len(delta) > WORTH * new.header.size:
        raise ArtifactError(f"no delta: it would take {len(delta)} bytes, the artifact {new.header.size}")
    try:
        apply_delta(old, delta, key, progress=lambda _, share: progress("checking", share))
    except ArtifactError as e:
        raise ArtifactError(f"no delta: an artifact is not as this release writes them: {e}") from e
    return delta


def apply_delta(
    old: Artifact, delta: Buffer, key: Key, most: int = MOST, progress: Told = lambda *_: None
) -> bytes:
    """Make the new artifact of the old one, and see that it is whole.

    A delta that was made to do harm can do no more than fail: whatever it makes has a bounded size, and the
    checksum that its own header names.

    Args:
        old: the artifact that the delta is for, as it was.
        delta: what `make_delta` made.
        key: that both were made under.
        most: bytes that the new artifact may have.
        progress: told how far it is.

    Raises:
        ArtifactError: the delta is damaged, or for another artifact, or made under another key, and the full
            artifact is the remedy; or `old` was compiled under another key.
    """
    view = memoryview(delta)
    if view[: len(_MAGIC)] != _MAGIC:
        raise ArtifactError("it does not begin with the magic of a delta: fetch the full artifact")
    if len(view) < _HEADER.size:
        raise ArtifactError(f"{len(view)} bytes are not even its header: fetch it again")
    _, version, size, key_id, checksum = _HEADER.unpack_from(view)
    if version > VERSION:
        raise ArtifactError(f"format version {version}, this release reads {VERSION}: update urlward")
    if version < VERSION:
        raise ArtifactError(f"format version {version}, of an older release: fetch the full artifact")
    if old.header.checksum != checksum:
        raise ArtifactError(
            f"it is for the artifact with checksum {checksum.hex()}, this one has "
            f"{old.header.checksum.hex()}: fetch the full artifact"
        )
    check_key(old.header, key)
    if key_id != key.id:
        raise ArtifactError(f"made under key {key_id.hex()}, the key given is {key.id.hex()}")
    if size > min(most, 2 * old.header.size + COMPRESSED * len(view)):
        raise ArtifactError(f"an artifact of {size} bytes is larger than it may be")
    try:
        frame = key.unseal(bytes(view[_HEADER.size :]))
    except ArtifactError as e:
        raise ArtifactError("it does not open under its key: fetch it again") from e
    try:
        progress("making", 0)
        prefix = _form(old, old, key)
        progress("making", 1 / 4)
        form = _opened(frame, prefix, size)
        progress("making", 2 / 4)
        made = _artifact(form, old, key)
        progress("making", 3 / 4)
        if parse(made).header.size != size:
            raise ValueError
    except _CONTRADICTIONS as e:
        raise ArtifactError("what it makes is not the new artifact: fetch the full artifact") from e
    return made


def _compressed(form: bytes, prefix: bytes, options: dict[int, int], progress: Told) -> bytes:
    """One frame of a form, by its prefix."""
    known = zstd.ZstdDict(prefix, is_raw=True).as_prefix
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=known)
    compressor.set_pledged_input_size(len(form))
    view, parts = memoryview(form), []
    for start in range(0, len(view), _CHUNK):
        progress("compressing", start / len(view))
        parts.append(compressor.compress(view[start : start + _CHUNK]))
    return b"".join([*parts, compressor.flush()])


def _window(size: int) -> int:
    """Logarithm of a window that reaches over so many bytes, as far as windows go."""
    _, most = zstd.CompressionParameter.window_log.bounds()
    return min(max(size.bit_length(), 10), most)


def _opened(frame: bytes, prefix: bytes, most: int) -> bytes:
    """Decompress a form of at most so many bytes.

    Raises:
        ZstdError, ValueError: it is damaged, or larger.
    """
    decoder = zstd.ZstdDecompressor(
        zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix,
        options={zstd.DecompressionParameter.window_log_max: _window(len(prefix) + most)},
    )
    form = decoder.decompress(frame, most)
    if not decoder.eof or decoder.unused_data:
        raise ValueError
    return form


def _form(artifact: Artifact, base: Artifact, key: Key) -> bytes:
    """The bytes of an artifact's form, with the numbers of shapes that another has."""
    sections: list[Buffer] = list(artifact.sections)
    for section, shapes_of in _SHAPES.items():
        if section < len(sections):
            said, categories = shapes_of(artifact.meta)
            numbers = _shape_numbers(said, categories, *shapes_of(base.meta))
            sections[section] = _renumbered(artifact.sections[section], said, numbers)
    for section in _ID_ENDS:
        if section < len(sections):
            ends = unpack("I", artifact.sections[section])
            # No id has as many as 256 letters.
            sections[section] = bytes(map(sub, ends, chain((0,), ends)))
    for section in _PAIRS:
        sections[section] = _gaps(artifact.sections[section])
    for section, (_, unseal) in _SEALED.items():
        if section < len(sections):
            sections[section] = unseal(key, artifact.sections[section])
    table = section_table(len(memoryview(section)) for section in sections)
    return b"".join([artifact.header.raw, table, *sections])


def _artifact(form: bytes, base: Artifact, key: Key) -> bytes:
    """Undo `_form`.

    Raises:
        _CONTRADICTIONS: it is none.
    """
    view = memoryview(form)
    count = int.from_bytes(view[_COUNT], "little")
    start = HEADER_SIZE + 8 * count
    ends = unpack("Q", view[HEADER_SIZE:start])
    if list(ends) != sorted(ends) or ends[-1] != len(view) - start:
        raise ValueError
    stored = [view[start + a : start + b] for a, b in pairwise((0, *ends))]
    sections: list[Buffer] = list(stored)
    meta = json.loads(bytes(stored[Section.META]))
    for section, shapes_of in _SHAPES.items():
        if section < count:
            said, categories = shapes_of(meta)
            numbers = _shape_numbers(said, categories, *shapes_of(base.meta))
            own = {number: shape for shape, number in numbers.items()}
            sections[section] = _renumbered(stored[section], said, own)
    for section in _ID_ENDS:
        if section < count:
            sections[section] = pack(array("I", accumulate(stored[section])))
    for section in _PAIRS:
        sections[section] = _totals(stored[section])
    for section, (seal, _) in _SEALED.items():
        if section < count:
            sections[section] = seal(key, bytes(stored[section]))
    table = section_table(len(memoryview(section)) for section in sections)
    return b"".join([view[:HEADER_SIZE], table, *sections])


_PAIRS = (Section.GROUPS, Section.PARAM_ROWS)
_ID_ENDS = (Section.ID_ENDS, Section.FILE_ID_ENDS)


def _shapes(meta: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a META says of shapes, and the categories that they have."""
    return meta, meta["categories"]


def _file_shapes(meta: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Likewise, of files; none where it has none."""
    return meta.get("files", {"shapes": []}), meta["categories"]


_SHAPES = {Section.SHAPES: _shapes, Section.FILE_SHAPES: _file_shapes}


def _unseal(key: Key, sealed: memoryview) -> bytes:
    return key.unseal(bytes(sealed))


_SEALED = {
    Section.NETWORKS: (Key.seal, _unseal),
    Section.SIEVE: (Key.seal, _unseal),
    Section.PERCEPTUAL: (seal_records, unseal_records),
}
"""Sections that are sealed, with what seals and what opens each."""


def _gaps(section: Buffer) -> bytes:
    """Pairs of ascending numbers as the differences from one pair to the next."""
    numbers = unpack("I", section)
    return pack(array("I", map(sub, numbers, chain((0, 0), numbers))))


def _totals(section: Buffer) -> bytes:
    """Undo `_gaps`."""
    numbers = array("I", unpack("I", section))
    for column in (slice(0, None, 2), slice(1, None, 2)):
        numbers[column] = array("I", accumulate(numbers[column]))
    return pack(numbers)


def _shape_numbers(
    said: dict[str, Any], categories: list[str], of_base: dict[str, Any], categories_of_base: list[str]
) -> dict[int, int]:
    """For each shape of a META its number in another, or one behind those: equal in words, not in numbers."""
    known = {shape: number for number, shape in enumerate(_in_words(of_base, categories_of_base))}
    shapes = enumerate(_in_words(said, categories))
    return {number: known.setdefault(shape, len(known)) for number, shape in shapes}


def _in_words(said: dict[str, Any], categories: list[str]) -> list[Sequence[object]]:
    return [
        (kind, flags, categories[category], expires, port)
        for kind, flags, category, expires, port in said["shapes"]
    ]


def _renumbered(section: memoryview, said: dict[str, Any], numbers: Mapping[int, int]) -> Buffer:
    """The section of the rows' shapes with other numbers."""
    if all(number == other for number, other in numbers.items()):
        return section
    typecode = "H" if said["shape_bytes"] == 2 else "I"
    return pack(array(typecode, map(numbers.__getitem__, unpack(typecode, section))))


def changes(old: Artifact, new: Artifact) -> tuple[int, int]:
    """Entries added and removed; a thousandth of a second for every 2,000 entries.

    Entries are told apart by half of their digests, which is enough to count them. Only artifacts under one
    key can be compared.
    """
    before = set(_marks(old))
    after = set(_marks(new))
    common = len(before & after)
    return len(after) - common, len(before) - common


def _marks(artifact: Artifact) -> Iterable[int]:
    sections, meta = artifact.sections, artifact.meta
    of_files = sections[Section.FILES] if len(sections) > Section.FILES else b""
    of_rows: Iterable[int] = unpack("Q", sections[Section.DIGESTS])[::2]
    entries = [Shape(*shape).is_entry for shape in meta["shapes"]]
    if not all(entries):
        numbers = unpack("H" if meta["shape_bytes"] == 2 else "I", sections[Section.SHAPES])
        of_rows = compress(of_rows, map(entries.__getitem__, numbers))
    return chain(of_rows, unpack("Q", of_files)[::2])
