"""Folders of squidGuard and ufdbGuard: a folder a category, with files ``domains`` and ``urls``.

A line of ``domains`` is a host and its subdomains. A line of ``urls`` is a host without ``www.``, port
and scheme, and the beginning of a path; letters compare without regard to case (squidGuard's sgDb.c and
sgDiv.c; ufdbGuard's Reference Manual). It becomes the path it names and what is below, and not names that
begin alike (``host/ad`` is no ``/adult``). The address to redirect to, that may follow, does not count.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from urlward.engine.errors import UrlError
from urlward.engine.url import split_authority
from urlward.lists.formats.found import FormatError, FormatOptions, Found, NotTakenError, Part, Read, Skipped
from urlward.lists.formats.stream import text_lines
from urlward.lists.formats.write import attributes, check_literal, domain, host_alone, page, prefix

_SCHEME = re.compile(r"(?:https?|wss?)://", re.IGNORECASE).match
_COMMENT = (b"#",)


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


READS: dict[str, Read] = {"domains": read_domains, "urls": read_urls, "expressions": read_expressions}


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`: what the file is, its name says.

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
        category = options.category or path.resolve().parent.name
        return [Part(path, _read_of(path.name), replace(options, category=category))]
    found = []
    for folder, folders, files in os.walk(path, onerror=_raise):
        folders.sort()
        category = Path(folder).resolve().name
        of_folder = replace(options, category=category)
        found += [Part(Path(folder, n), READS[n], of_folder) for n in sorted(READS.keys() & set(files))]
    if not found:
        raise FormatError("no file named domains or urls in it, or in its folders")
    return found


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
            for entry in lines_of(word):
                yield Found(entry + more, number, column)
        except UrlError as e:
            yield Skipped(number, column, str(e))
        except NotTakenError as e:
            yield Skipped(number, column, e.reason, e.unsupported)


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
    path = slash + rest
    check_literal(path.partition("?")[0])
    if "?" in path:
        return [f"{page(f'http://{host}{path}')} nocase"]
    lines = [] if path.endswith("/") else [f"{page(f'http://{host}{path}')} nocase"]
    return [*lines, f"{prefix(host, path if path.endswith('/') else f'{path}/')} nocase"]
