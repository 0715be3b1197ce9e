"""The ``.ward`` file: a compiled list, hashed under a key.

Layout, all numbers little-endian:

======  =====  =========================================================================
offset  bytes  content
======  =====  =========================================================================
0       8      magic ``URLWARD\\n``
8       2      format version (1)
10      2      size of this header (256)
12      4      number of sections
16      8      size of the whole file
24      8      key id
32      16     BLAKE2b-128 of the file with these 16 bytes and the signature as zeros
48      8      serial
56      8      created, seconds since 1970-01-01 UTC
64      8      valid from, likewise; 0 for always
72      8      valid until, likewise; 0 for always
80      32     public key of the signer; zeros for none
112     64     signature; zeros for none
176     80     zeros
256     8 * n  end of each section, as an offset from the first section's start
...            the sections, in the order of `Section`
======  =====  =========================================================================

Sections behind `Section.SIEVE` are there where the list has files, and releases that do not know them leave
them out: what META says of files, besides its counts, is in a member of its own.

A *row* is one record; rows of the anchored pool come first, then those of the floating pool. A *pattern*
is what the automaton holds; rows that share one are its group, sorted by digest. Patterns are sorted and
front-coded: letters shared with the one before, letters added, the letters.
"""

import json
import re
import struct
import sys
from array import array
from collections.abc import Buffer, Generator, Iterable, Sequence
from enum import IntEnum
from hashlib import blake2b
from itertools import accumulate, batched, pairwise
from operator import sub
from typing import Any, NamedTuple

from urlward.engine.compiler import MAX_PATTERN, Compiled, CompiledFiles, FilePool
from urlward.engine.digest import DIGEST_SIZE, Key
from urlward.engine.entry import Kind
from urlward.engine.errors import ArtifactError
from urlward.engine.perceptual import seal_records, sealed_size
from urlward.engine.steps import exhaust

MAGIC = b"URLWARD\n"
VERSION = 1
HEADER_SIZE = 256

_HEADER = struct.Struct("<8sHHIQ8s16sQQQQ32s64s80s")
_CHECKSUM = slice(32, 48)
SIGNATURE = slice(112, 176)
_SERIAL_AT, _VALIDITY_AT = 48, 64
_CHUNK = 1 << 20
_CHECKED = 1 << 10
"""Shapes or words checked in a step."""


class Section(IntEnum):
    """Sections of a file, in order."""

    META = 0  # JSON: name, entries, categories, shapes, counts, …
    DIGESTS = 1  # 16 bytes a row
    SHAPES = 2  # 2 or 4 bytes a row (meta: shape_bytes)
    LENGTHS = 3  # 2 bytes a row: labels or segments
    BELOW = 4  # 4 bytes a row: which host a page is on
    ID_ENDS = 5  # 4 bytes a row: end of its id; empty where no row has one
    IDS = 6  # ASCII
    SHARED = 7  # 1 byte a pattern
    ADDED = 8  # 1 byte a pattern
    LETTERS = 9  # Latin-1
    GROUPS = 10  # pairs of 4 bytes: first row, end row, for groups of several rows
    PARAM_ROWS = 11  # pairs of 4 bytes: row, end of its further digests
    PARAMS = 12  # 16 bytes a digest
    NETWORKS = 13  # sealed JSON: the addresses and networks
    SIEVE = 14  # sealed: `urlward.engine.sieve`
    FILES = 15  # 16 bytes a file, in the order of `urlward.engine.compiler.FileRow`
    FILE_SHAPES = 16  # 2 or 4 bytes a file (meta: files, shape_bytes)
    FILE_ID_ENDS = 17  # 4 bytes a file: end of its id; empty where none has one
    FILE_IDS = 18  # ASCII
    PERCEPTUAL = 19  # sealed in blocks: `urlward.engine.perceptual`


ALWAYS = Section.SIEVE + 1
"""Sections that every artifact has."""


class Header(NamedTuple):
    """Parsed header of an artifact; `raw` is all of its bytes."""

    key_id: bytes
    size: int
    checksum: bytes
    serial: int
    created: int
    valid_from: int
    valid_until: int
    signer: bytes
    signature: bytes
    raw: bytes


class Artifact(NamedTuple):
    """Parsed and checked artifact.

    Attributes:
        header: the fixed part.
        meta: the JSON part: ``name``, ``entries``, ``counts``, ``by_category`` and what loading needs.
        sections: views into the file's bytes.
    """

    header: Header
    meta: dict[str, Any]
    sections: tuple[memoryview, ...]

    @property
    def entries(self) -> int:
        """Number of entries."""
        files = self.meta.get("files")
        return int(self.meta["entries"]) + (sum(files["rows"]) if files else 0)


def dump(
    compiled: Compiled,
    key: Key,
    *,
    name: str,
    serial: int,
    created: int,
    valid_from: int = 0,
    valid_until: int = 0,
) -> bytes:
    """Serialise; the same input gives the same bytes.

    Args:
        compiled: what `Compiler.finish` gave.
        key: the key it was compiled under.
        name: of the list, shown in verdicts.
        serial: rises with each issue of the list.
        created: seconds since 1970-01-01 UTC.
        valid_from: likewise; 0 for always.
        valid_until: likewise.
    """
    anchored, floating_rows = compiled.rows
    floating, ids = len(anchored), anchored.ids + floating_rows.ids
    id_ends = array("I", accumulate(map(len, ids))) if any(ids) else array("I")
    param_rows = array("I")
    params: list[bytes] = []
    for base, rows in ((0, anchored), (floating, floating_rows)):
        for row, more in rows.more.items():
            params.extend(more)
            param_rows.extend((base + row, len(params)))
    shape_type = "H" if len(compiled.shapes) < 1 << 16 else "I"
    shared, added, letters, groups = _patterns(compiled, floating, len(ids))
    prefixes = [(n, n.rpartition("/")[2]) for n in compiled.networks if "/" in n]
    lengths = sorted({int(length) for n, length in prefixes if "." in n})
    lengths6 = sorted({int(length) for n, length in prefixes if ":" in n})
    meta: dict[str, Any] = {
        "name": name,
        # Without files: a release that knows none finds no more entries than rows.
        "entries": sum(compiled.counts.values()) - len(compiled.files.rows),
        "counts": dict(sorted(compiled.counts.items())),
        "by_category": dict(sorted(compiled.by_category.items())),
        "categories": compiled.categories,
        "shapes": [list(shape) for shape in compiled.shapes],
        "shape_bytes": array(shape_type).itemsize,
        "floating_row": floating,
        "floating_pattern": len(compiled.patterns[0]),
        "prefixes4": lengths,
        "prefixes6": lengths6,
    }
    files, further = _files(compiled.files, key)
    if files:
        meta["files"] = files
    sections: list[bytes] = [
        json.dumps(meta, separators=(",", ":")).encode(),
        anchored.digests + floating_rows.digests,
        pack(array(shape_type, anchored.shapes + floating_rows.shapes)),
        pack(anchored.lengths + floating_rows.lengths),
        anchored.below + floating_rows.below,
        pack(id_ends),
        "".join(ids).encode("ascii"),
        bytes(shared),
        bytes(added),
        "".join(letters).encode("latin-1"),
        pack(groups),
        pack(param_rows),
        b"".join(params),
        key.seal(json.dumps(compiled.networks, separators=(",", ":")).encode()),
        key.seal(compiled.sieve),
        *further,
    ]
    return _write(sections, key, (serial, created, valid_from, valid_until))


def _files(files: CompiledFiles, key: Key) -> tuple[dict[str, Any], list[bytes]]:
    """What META says of a list's files, and their sections; nothing where there are none."""
    if not files.rows:
        return {}, []
    pools, _, digests, shapes, records, ids, _ = zip(*files.rows, strict=True)
    shape_type = "H" if len(files.shapes) < 1 << 16 else "I"
    said = {
        "rows": [pools.count(pool) for pool in FilePool],
        "algorithms": files.algorithms,
        "shapes": [list(shape) for shape in files.shapes],
        "shape_bytes": array(shape_type).itemsize,
    }
    return said, [
        b"".join(digests),
        pack(array(shape_type, shapes)),
        pack(array("I", accumulate(map(len, ids))) if any(ids) else array("I")),
        "".join(ids).encode("ascii"),
        seal_records(key, b"".join(records)),
    ]


def _write(sections: Sequence[bytes], key: Key, issue: tuple[int, int, int, int]) -> bytes:
    """Serialise sections without a signature; `issue` is serial, created, valid from and valid until."""
    table = section_table(map(len, sections))
    size = HEADER_SIZE + len(table) + sum(map(len, sections))
    fixed = (MAGIC, VERSION, HEADER_SIZE, len(sections), size, key.id, b"")
    header = _HEADER.pack(*fixed, *issue, b"", b"", b"")
    data = bytearray(b"".join([header, table, *sections]))
    data[_CHECKSUM] = exhaust(_checksum(data))
    return bytes(data)


def section_table(sizes: Iterable[int]) -> bytes:
    """End of each section, for sections of these sizes."""
    return pack(array("Q", accumulate(sizes)))


def reissue(data: Buffer, *, serial: int, valid_from: int, valid_until: int, signer: bytes) -> bytearray:
    """An artifact with another serial, dates and signer, its checksum made anew and no signature.

    Args:
        data: the whole file.
        serial: see `dump`.
        valid_from: likewise.
        valid_until: likewise.
        signer: 32 bytes of its public key.
    """
    made = bytearray(data)
    struct.pack_into("<Q", made, _SERIAL_AT, serial)
    struct.pack_into("<QQ32s64s", made, _VALIDITY_AT, valid_from, valid_until, signer, b"")
    made[_CHECKSUM] = exhaust(_checksum(made))
    return made


def wrong_length(found: int, expected: int) -> ArtifactError:
    """Error for an artifact that is shorter, or longer, than its header says."""
    return ArtifactError(
        f"{found} bytes where the header says {expected}: copy or fetch it again", "truncated"
    )


def read_header(data: Buffer) -> Header:
    """The header at the beginning of some bytes, of which no more than that is looked at.

    Raises:
        ArtifactError: what is wrong.
    """
    view = memoryview(data)
    if view[: len(MAGIC)] != MAGIC:
        raise ArtifactError("not a .ward file: it does not begin with the magic of one")
    if len(view) < HEADER_SIZE:
        raise wrong_length(len(view), HEADER_SIZE)
    (_, version, _, _, size, *rest) = _HEADER.unpack_from(view)
    if version > VERSION:
        text = f"format version {version}, this release reads up to {VERSION}: update urlward"
        raise ArtifactError(text, "newer-version")
    return Header._make((rest[0], size, *rest[1:8], bytes(view[:HEADER_SIZE])))


def parse(data: Buffer) -> Artifact:
    """Check an artifact's bytes and cut them into sections.

    Sections are views of `data`, which is not copied: mapped memory will do, if it never changes.

    Raises:
        ArtifactError: what is wrong.
    """
    return exhaust(parsing(data))


def parsing(data: Buffer) -> Generator[None, None, Artifact]:
    """`parse`, in steps of about a millisecond."""
    header = read_header(data)
    view = memoryview(data)
    (_, version, header_size, count, size, *_) = _HEADER.unpack_from(view)
    if len(view) != size:
        raise wrong_length(len(view), size)
    if (yield from _checksum(view)) != header.checksum:
        raise ArtifactError("its checksum does not fit its content: copy or fetch it again")
    if any(header.signature) and not any(header.signer):
        raise ArtifactError("it has a signature and no signer: copy or fetch it again")
    if not version or header_size != HEADER_SIZE or count < ALWAYS or HEADER_SIZE + 8 * count > size:
        raise ArtifactError("its section table does not fit its size")
    start = HEADER_SIZE + 8 * count
    ends = list(unpack("Q", view[HEADER_SIZE:start]))
    if ends != sorted(ends) or ends[-1] != size - start:
        raise ArtifactError("its section table does not fit its size")
    sections = tuple(view[start + a : start + b] for a, b in zip([0, *ends], ends, strict=False))
    try:
        meta = json.loads(bytes(sections[Section.META]))
        yield
        yield from _check_sizes(meta, sections)
        if "files" in meta:
            yield from _check_files(meta["files"], len(meta["categories"]), sections)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as e:
        raise ArtifactError("a section does not have the size its meta section says") from e
    return Artifact(header, meta, sections)


def check_key(header: Header, key: Key) -> None:
    """Raise ArtifactError unless `key` is the one the artifact was compiled under."""
    if header.key_id != key.id:
        text = f"compiled under key {header.key_id.hex()}, the key given is {key.id.hex()}"
        raise ArtifactError(text, "key")


def networks(artifact: Artifact, key: Key) -> list[str]:
    """The listed addresses and networks, for the kernel's steer set.

    Returns:
        Those that are listed themselves in CIDR form, and addresses that have pages listed without ``/``.

    Raises:
        ArtifactError: not sealed under this key.
    """
    result: list[str] = json.loads(key.unseal(artifact.sections[Section.NETWORKS]))
    return result


def unpack(typecode: str, data: Buffer) -> memoryview:
    """View of little-endian numbers in this machine's byte order."""
    view = memoryview(data)
    if sys.byteorder == "big":
        numbers = array(typecode, view.tobytes())
        numbers.byteswap()
        return memoryview(numbers)
    return view.cast(typecode)  # type: ignore[call-overload, no-any-return]


def pack(numbers: "array[int]") -> bytes:
    """Undo `unpack`."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _patterns(
    compiled: Compiled, floating: int, total: int
) -> tuple[bytearray, bytearray, list[str], "array[int]"]:
    shared, added, letters, groups = bytearray(), bytearray(), [], array("I")
    for base, stop, patterns in (
        (0, floating, compiled.patterns[0]),
        (floating, total, compiled.patterns[1]),
    ):
        texts, starts, commons = patterns.letters, patterns.rows, patterns.shared
        shared.extend(commons)
        added.extend(map(sub, map(len, texts), commons))
        letters.extend([text[common:] for text, common in zip(texts, commons, strict=True)])
        if len(patterns) != stop - base:
            for start, end in pairwise((*starts, stop - base)):
                if end - start > 1:
                    groups.extend((base + start, base + end))
    return shared, added, letters, groups


def _check_sizes(meta: dict[str, Any], sections: tuple[memoryview, ...]) -> Generator[None]:
    rows, odd = divmod(len(sections[Section.DIGESTS]), DIGEST_SIZE)
    fits = (
        not odd
        and meta["shape_bytes"] in (2, 4)
        and len(sections[Section.SHAPES]) == rows * meta["shape_bytes"]
        and len(sections[Section.LENGTHS]) == rows * 2
        and len(sections[Section.BELOW]) == rows * 4
        and len(sections[Section.ID_ENDS]) in (0, rows * 4)
        and len(sections[Section.SHARED]) == len(sections[Section.ADDED])
        and len(sections[Section.GROUPS]) % 8 == 0
        and len(sections[Section.PARAM_ROWS]) % 8 == 0
        and len(sections[Section.PARAMS]) % DIGEST_SIZE == 0
        and _are_numbers([meta["floating_row"]], rows)
        and _are_numbers([meta["floating_pattern"]], len(sections[Section.SHARED]))
        and _are_numbers([meta["entries"]], rows)
        and _are_numbers(meta["prefixes4"], 32)
        and _are_numbers(meta["prefixes6"], 128)
        and isinstance(meta["shapes"], list)
        and isinstance(meta["categories"], list)
        and isinstance(meta["counts"], dict)
        and isinstance(meta["by_category"], dict)
    )
    # A list may give each entry a category of its own.
    for shapes in batched(meta["shapes"], _CHECKED):
        fits = fits and _are_shapes(shapes, _OF_ROWS, len(meta["categories"]))
        yield
    words = meta["name"], *meta["categories"], *meta["counts"], *meta["by_category"]
    for some in batched(words, _CHECKED):
        fits = fits and _are_words(some)
        yield
    if not fits:
        raise ValueError


def _check_files(meta: dict[str, Any], categories: int, sections: tuple[memoryview, ...]) -> Generator[None]:
    rows, algorithms = meta["rows"], meta["algorithms"]
    if not _are_numbers(rows, 0xFFFFFFFF) or not isinstance(algorithms, dict):
        raise ValueError
    count = sum(rows)
    fits = (
        len(rows) == len(FilePool)
        and meta["shape_bytes"] in (2, 4)
        and len(sections[Section.FILES]) == count * DIGEST_SIZE
        and len(sections[Section.FILE_SHAPES]) == count * meta["shape_bytes"]
        and len(sections[Section.FILE_ID_ENDS]) in (0, count * 4)
        and len(sections[Section.PERCEPTUAL]) == sealed_size(rows[FilePool.LISTED])
        and isinstance(meta["shapes"], list)
        and _are_words(algorithms)
        and all(_are_numbers(counts, count) and len(counts) == 2 for counts in algorithms.values())
    )
    for shapes in batched(meta["shapes"], _CHECKED):
        fits = fits and _are_shapes(shapes, _OF_FILES, categories)
        yield
    if not fits:
        raise ValueError


_NO_WORD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, and half characters, as a file's name has them that is not UTF-8."""


def fit_name(name: str) -> str:
    """A name that a list can have: what is no character to show is escaped."""
    return _NO_WORD.sub(lambda found: found[0].encode("unicode_escape").decode(), name)


def _are_words(names: Iterable[Any]) -> bool:
    """Whether all of these can stand in a log's line, and in an event, as they are."""
    return all(isinstance(name, str) and not _NO_WORD.search(name) for name in names)


def _are_numbers(values: Any, most: int) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n <= most for n in values)


_OF_ROWS, _OF_FILES = range(Kind.FILE), range(Kind.FILE, Kind.FILE + 1)
"""Kinds, and `MARKER`, that rows have, and files."""


def _are_shapes(shapes: Iterable[Any], kinds: range, categories: int) -> bool:
    return all(
        len(shape) == 5 and _are_numbers(shape, 0xFFFFFFFF) and shape[0] in kinds and shape[2] < categories
        for shape in shapes
    )


def _checksum(data: Buffer) -> Generator[None, None, bytes]:
    """BLAKE2b over the file, checksum and signature counted as zeros."""
    view = memoryview(data)
    h = blake2b(digest_size=16)
    head = bytearray(view[:HEADER_SIZE])
    head[_CHECKSUM] = bytes(16)
    head[SIGNATURE] = bytes(64)
    h.update(head)
    for start in range(HEADER_SIZE, len(view), _CHUNK):
        h.update(view[start : start + _CHUNK])
        yield
    return h.digest()


assert MAX_PATTERN <= 0xFF, "a pattern's lengths are stored in one byte each"
