"""squidGuard and ufdbGuard folders: a folder a category, with files ``domains`` and ``urls``.

A line of ``domains`` is a host and its subdomains. A line of ``urls`` is a host without ``www.``, port
and scheme, and the beginning of a path; letters compare without regard to case (squidGuard's sgDb.c and
sgDiv.c; ufdbGuard's Reference Manual). It becomes the path it names and what is below, and not names that
begin alike (``host/ad`` is no ``/adult``). The address to redirect to, that may follow, does not count.

Which folders allow stands in squidGuard.conf and not in the database. The blacklists of Toulouse say it of
theirs in ``global_usage`` (``NAME:`` and ``DEFAULT_TYPE: white``); else a few names say it, which such
folders have everywhere. Nothing in such a folder blocks unless somebody says so.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from urlward.engine.errors import UrlError
from urlward.engine.url import split_authority
from urlward.lists.formats.format import (
    FormatError,
    FormatOptions,
    Found,
    NotTakenError,
    Part,
    Read,
    Skipped,
    not_taken,
    text_lines,
)
from urlward.lists.formats.write import FRAGMENT, attributes, domain, host_alone, literal, page, prefix
from urlward.regular import open_regular, without_bom

_SCHEME = re.compile(r"(?:https?|wss?)://", re.IGNORECASE).match
_COMMENT = (b"#",)
_USAGE = "global_usage"
_MAX_USAGE = 1 << 20
_WHITE = frozenset(
    {
        "allow",
        "allowed",
        "exceptions_liste_bu",
        "liste_blanche",
        "liste_bu",
        "white",
        "whitelist",
        "whitelists",
    }
)
"""Names of folders that allow, where no ``global_usage`` says it."""


def read_domains(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`: a file ``domains``."""
    return _read(file, options, _domain)


def read_urls(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`: a file ``urls``."""
    return _read(file, options, _url)


def read_expressions(file: BinaryIO, options: FormatOptions) -> Iterator[Skipped]:  # noqa: ARG001
    """See `Format.read`: a file ``expressions``, of which nothing can be taken."""
    for line in text_lines(file, _COMMENT):
        if isinstance(line, Skipped):
            yield line
        else:
            yield Skipped(line[0], 1, "a regular expression", unsupported=True)


def read_white(file: BinaryIO, options: FormatOptions) -> Iterator[Skipped]:  # noqa: ARG001
    """See `Format.read`: a file of a folder that allows, of which nothing is taken."""
    reason = "a folder of what is allowed, not blocked: --white allow takes it as @@"
    yield Skipped(1, 1, reason, unsupported=True, whole_file=True)


READS: dict[str, Read] = {"domains": read_domains, "urls": read_urls, "expressions": read_expressions}


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`: the file's name decides how it is read.

    Raises:
        FormatError: it has none of these names.
    """
    return _read_of(str(getattr(file, "name", "")))(file, options)


def _read_of(path: str) -> Read:
    name = os.path.basename(path)  # noqa: PTH119 - a name, of a file or of none
    if name not in READS:
        raise FormatError("a folder, or a file named domains or urls; else say squidguard-domains or -urls")
    return READS[name]


def parts(path: Path, options: FormatOptions) -> list[Part]:
    """The files of a folder and of those in it; each takes its folder's name for a category.

    Raises:
        FormatError: nothing of the kind is there.
        OSError: a folder cannot be read.
    """
    path.stat()
    if not path.is_dir():
        folder = path.resolve().parent
        named = replace(options, category=options.category or folder.name)
        return [_part(path, _read_of(path.name), named, white=_is_white(folder, _usage(folder.parent)))]
    found = []
    usages: dict[Path, Mapping[str, str]] = {}
    for where, folders, files in os.walk(path, onerror=_raise):
        folders.sort()
        folder = Path(where).resolve()
        if folder.parent not in usages:
            usages[folder.parent] = _usage(folder.parent)
        white = _is_white(folder, usages[folder.parent])
        named = replace(options, category=folder.name)
        found += [
            _part(Path(where, n), READS[n], named, white=white) for n in sorted(READS.keys() & set(files))
        ]
    if not found:
        raise FormatError("no file named domains or urls in it, or in its folders")
    return found


def _part(path: Path, read: Read, options: FormatOptions, *, white: bool) -> Part:
    """Make the part of a file: one of a folder that allows is read as the options say."""
    if not white or options.white == "block":
        return Part(path, read, options)
    if options.white == "skip":
        return Part(path, read_white, options)
    return Part(path, partial(_allowing, read), options)


def _allowing(read: Read, file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    for each in read(file, options):
        yield each if isinstance(each, Skipped) else each._replace(text=f"@@{each.text}")


def _is_white(folder: Path, usage: Mapping[str, str]) -> bool:
    name = folder.name.lower()
    return usage.get(name, "white" if name in _WHITE else "black") == "white"


def _usage(folder: Path) -> Mapping[str, str]:
    """Parse ``global_usage`` in a folder: names in that folder to ``white`` or ``black``."""
    try:
        with open_regular(folder / _USAGE) as file:
            text = without_bom(file.read(_MAX_USAGE)).decode(errors="replace")
    except OSError:
        return {}
    usage, name = {}, ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "NAME":
            name = value.strip().lower()
        elif key.strip() == "DEFAULT_TYPE" and name:
            usage[name] = value.strip().lower()
    return usage


def _raise(error: OSError) -> None:
    raise error


def _read(
    file: BinaryIO, options: FormatOptions, lines_of: Callable[[str], list[str]]
) -> Iterator[Found | Skipped]:
    more = attributes(category=options.category)
    for line in text_lines(file, _COMMENT):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        word = text.split()[0]
        column = text.index(word) + 1
        try:
            if "#" in word:
                raise NotTakenError(FRAGMENT)
            for entry in lines_of(word):
                yield Found(entry + more, number, column)
        except (UrlError, NotTakenError) as e:
            yield not_taken(number, column, e)


def _domain(word: str) -> list[str]:
    return [domain(word.lower().removeprefix("."))]


def _url(word: str) -> list[str]:
    scheme = _SCHEME(word)
    authority, slash, rest = word[scheme.end() if scheme else 0 :].partition("/")
    if authority.endswith(":") and rest.startswith("/"):
        raise NotTakenError("a scheme that is not filtered: entries are http or https")
    host, _ = split_authority(authority)
    if "?" in host:
        raise NotTakenError("a query without a path", unsupported=False)
    host = host.lower()
    whole = host_alone(host)
    if not rest:
        # A host is any path on it, and `www.` of a request counts as absent, but not that of a line.
        has_www = host.startswith("www.") or not whole.startswith("0")
        return [whole] if has_www else [whole, host_alone(f"www.{host}")]
    path, mark, query = (slash + rest).partition("?")
    path = literal(path)
    if mark:
        return [f"{page(f'http://{host}{path}?{query}')} nocase"]
    lines = [] if path.endswith("/") else [f"{page(f'http://{host}{path}')} nocase"]
    return [*lines, f"{prefix(host, path if path.endswith('/') else f'{path}/')} nocase"]
