"""Build of artifacts and loaded lists from files: keys, serials, dates, and files written whole."""

import gc
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from urlward.engine.artifact import MAGIC, dump, fit_name
from urlward.engine.compiler import Compiler
from urlward.engine.dates import parse_time
from urlward.engine.digest import KEY_SIZE, Key
from urlward.engine.errors import ArtifactError, KeyFileError, UrlwardError
from urlward.engine.record import DAY
from urlward.engine.signing import MAX_SERIAL, SigningKey, sign_artifact
from urlward.lists.formats import AUTO, DEFAULTS, FormatOptions
from urlward.lists.run_folder import inherited
from urlward.lists.source import (
    ErrorBudget,
    Report,
    SourceError,
    check_budget,
    open_list,
    read_source,
    unreadable,
)
from urlward.progress import Progress, silent
from urlward.regular import new_file
from urlward.state.keys import key_beside, read_key
from urlward.units import whole

_BEGINNING = 1 << 16
"""Bytes by which it is told of what kind a file is."""


@dataclass(frozen=True, slots=True)
class Issue:
    """Issue of a list.

    Attributes:
        serial: higher than that of any issue before; None for the clock's seconds, or that of an artifact
            which is there already.
        valid_from: seconds since 1970-01-01 UTC, 0 for always; None for always, or likewise.
        valid_until: likewise.
        key: to sign with.

    Raises:
        UrlwardError: out of range, or it ends before it begins.
    """

    serial: int | None = None
    valid_from: int | None = None
    valid_until: int | None = None
    key: SigningKey | None = None

    def __post_init__(self) -> None:
        if self.serial is not None and not 0 <= self.serial <= MAX_SERIAL:
            raise UrlwardError(f"serial: {self.serial} is not a number from 0 to {MAX_SERIAL}")
        if self.valid_until and (self.valid_from or 0) >= self.valid_until:
            raise UrlwardError("valid-until: not after valid-from")


ISSUE = Issue()
"""Serial by the clock, always valid, unsigned."""


def read_issue(serial: str | None, valid_from: str | None, valid_until: str | None) -> Issue:
    """Make an issue from the command line's texts, unsigned.

    Args:
        serial: a number.
        valid_from: a date, which is its beginning, or a time (`parse_time`).
        valid_until: likewise, but a date is its end.

    Raises:
        UrlwardError: one of them is none, or they contradict each other.
    """
    return Issue(
        read_serial("serial", serial),
        read_date("valid-from", valid_from),
        read_date("valid-until", valid_until, whole_day=True),
    )


def read_serial(name: str, text: str | None) -> int | None:
    """Parse a serial; None from None.

    Args:
        name: of the option, for the message.
        text: a number.

    Raises:
        UrlwardError: not one in range.
    """
    if text is None:
        return None
    try:
        return whole(text, MAX_SERIAL)
    except ValueError as e:
        raise UrlwardError(f"{name}: {text[:40]!r} is {e}") from None


def read_date(name: str, text: str | None, *, whole_day: bool = False) -> int | None:
    """Parse a time (`parse_time`); None from None.

    Raises:
        UrlwardError: neither a date nor a time.
    """
    if text is None:
        return None
    try:
        return parse_time(text, whole_day=whole_day)
    except ValueError as e:
        raise UrlwardError(f"{name}: {text[:40]!r} is {e}") from e


def is_artifact(path: Path) -> bool:
    """Whether a file is an artifact, by its first bytes.

    Raises:
        SourceError: not readable.
    """
    with open_list(path) as file:
        try:
            # Not through a buffer, which would hold more of a source than these bytes.
            return os.pread(file.fileno(), len(MAGIC), 0) == MAGIC
        except OSError as e:
            raise unreadable(path, e) from e


def compile_sources(
    paths: Sequence[Path],
    key: Key,
    *,
    name: str,
    budget: ErrorBudget | None = None,
    now: float | None = None,
    progress: Progress = silent,
    issue: Issue = ISSUE,
    format: str = AUTO,  # noqa: A002 - the word
    options: FormatOptions = DEFAULTS,
) -> tuple[bytes, Report]:
    """Compile one or more sources into one artifact.

    Args:
        paths: the sources, in order.
        key: to compile under.
        name: of the list.
        budget: of bad lines; 1 % where not given.
        now: the artifact's date, and serial where `issue` has none, seconds since 1970-01-01 UTC; the clock
            where not given.
        progress: told how far it is.
        issue: serial, dates and signing key.
        format: of the sources, one of `urlward.lists.formats.FORMATS`.
        options: how to read it.

    Raises:
        SourceError: a source is no list, or has too many bad lines.
    """
    now = time.time() if now is None else now
    report = Report(today=int(now // DAY))
    compiler = Compiler(key)
    sizes = [max(_size(path), 1) for path in paths]
    total, before = sum(sizes), 0
    with _without_collector():
        for path, size in zip(paths, sizes, strict=True):

            def tell(done: int, start: int = before) -> None:
                progress("reading", min((start + done) / total, 1))

            read_source(path, compiler, report, tell, format, options)
            before += size
        what = ", ".join(str(path) for path in paths)
        check_budget(report, budget or ErrorBudget(), what)
        rows = max(len(compiler), 1)
        try:
            compiled = compiler.finish(lambda done: progress("compiling", min(done / rows, 1)))
        except UrlwardError as e:
            raise SourceError(f"{what}: {e}") from e
        del compiler
        data = dump(
            compiled,
            key,
            name=name,
            serial=int(now) if issue.serial is None else issue.serial,
            created=int(now),
            valid_from=issue.valid_from or 0,
            valid_until=issue.valid_until or 0,
        )
        if issue.key is not None:
            data = sign_artifact(data, issue.key)
        progress("compiling", 1)
    return data, report


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except (OSError, ValueError) as e:
        raise unreadable(path, e) from e


@contextmanager
def _without_collector() -> Iterator[None]:
    """Switch the garbage collector off: a compile makes millions of small tuples without cycles, and
    looking for cycles among them costs a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all: beside it first, then in its place.

    Raises:
        SourceError: not writable.
    """
    with written_atomically(path, mode) as file:
        file.write(data)


def write_in_kind(path: Path, data: bytes) -> None:
    """Write an artifact or a delta as `write_atomically`; it takes the place of another of its kind alone: a
    name that was mistyped, or two in the wrong order, cost nobody a list, a key or a configuration.

    Raises:
        SourceError: not writable, or something else is there.
    """
    check_place(path, lambda there: there.startswith(data[: len(MAGIC)]), "of another kind")
    write_atomically(path, data)


def check_place(path: Path, is_ours: Callable[[bytes], bool], what: str) -> None:
    """Refuse to write over a file of another kind: a name that was mistyped costs nobody a file.

    Args:
        path: where something is to be written.
        is_ours: whether a file that begins so may go; one that is empty may.
        what: of others, in words.

    Raises:
        SourceError: it is one.
    """
    with suppress(OSError):  # writing it will tell
        if not path.is_file():
            return
        with path.open("rb") as file:
            there = file.read(_BEGINNING)
        if there and not is_ours(there):
            raise SourceError(f"{path}: there already, and {what}: it is not overwritten")


@contextmanager
def written_atomically(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file that is put in its place where the block ends, and nowhere where it raises.

    Raises:
        SourceError: not writable.
    """
    if not path.name:
        raise SourceError(f"{path}: a folder, not a file")
    if _is_no_file(path):
        # Root could, and would leave a machine without its /dev/null.
        raise SourceError(f"{path}: a device, a pipe or the like, which no file takes the place of")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with new_file(temporary, mode) as file:
            yield file
        try:
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as e:
        raise unreadable(path, e) from e
    # The file is in its place: a folder that cannot be synchronised does not undo that.
    with suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _is_no_file(path: Path) -> bool:
    try:
        in_dev = path.absolute().parent.resolve() == Path("/dev")
        return in_dev or (path.exists() and not path.is_file() and not path.is_dir())
    except OSError:
        return False  # writing it will tell


def find_key(path: Path | None, lists: Sequence[Path], local: Key | None = None) -> Key:
    """Find the key of some lists: the file given, or the one that `compile` made for an artifact.

    Sources alone need none that lasts: they get the local one, or else a new one, which dies with the
    process, or with the last of the workers, which share it.

    Raises:
        KeyFileError: an artifact has no key.
        SourceError: a list is not readable.
    """
    if path is not None:
        return read_key(path)
    run = inherited()
    for artifact in lists:
        beside = key_beside(artifact)
        try:
            needs_key = is_artifact(artifact)
        except SourceError:
            if run is None:
                raise
            needs_key = beside.exists()  # other workers may still have the list
        if needs_key:
            if not beside.exists():
                raise KeyFileError(f"{artifact}: an artifact needs its key: --key FILE, or {beside}")
            return read_key(beside)
    if local is not None:
        return local
    return Key(run.secret if run is not None else secrets.token_bytes(KEY_SIZE))


def name_of(path: Path) -> str:
    """Default name of a list: what a file may be called and no list can is escaped."""
    return fit_name(path.stem or path.name)


def told(path: Path, error: UrlwardError) -> str:
    """Text of an error, with the file in front where it does not name it."""
    text = str(error)
    if isinstance(error, ArtifactError):
        text = f"{path}: {text}"
    return text
