"""No process of a running filter holds an entry, or can leave one in a core dump, once lists are in force."""

import gzip
import os
import random
import re
import resource
import signal
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from conftest import free_port, wait_for
from e2e.support import RECORDS, Filter, children_of, command_of, has_ended, running
from e2e.test_feeds import publish, server
from urlward.policy.allows import add_allow
from urlward.state.folder import local_key

ENTRIES = 5_000
MARK = "qzxjv"
"""What each listed host begins with; rare enough for a search of all memory to be fast."""

LETTERS = 10
"""Behind it, at random."""

_WIDTHS = {"bytes": "latin-1", "UTF-16": "utf-16-le", "UCS-4": "utf-32-le"}
_MARKS = {len("a".encode(encoding)): MARK.encode(encoding) for encoding in _WIDTHS.values()}
_CHUNK = 1 << 20
_PAGE = resource.getpagesize()

CONFIG = """\
state = "state"
workers = 2
[[feed]]
name = "by-path"
path = "path.txt"
max_shrink = 1
[[feed]]
name = "by-url"
url = "http://127.0.0.1:{port}/url.txt.gz"
max_shrink = 1
"""
CONFIG += RECORDS

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="reads other processes' memory")


def made_list(seed: str, entries: int) -> tuple[str, list[str]]:
    """A list as text, and the first labels of its hosts."""
    letters = random.Random(seed)
    labels = [
        MARK + "".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=LETTERS)) for _ in range(entries)
    ]
    return "".join(f"{label}.example id={n}\n" for n, label in enumerate(labels)), labels


def processes(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        found.extend(child for child in children_of(each) if not has_ended(child))
    return found


def has_been_used(pages: BinaryIO, start: int, end: int) -> bool:
    """Whether a page of memory that is no file's is there, or is swapped out (proc_pid_pagemap(5))."""
    pages.seek(start // _PAGE * 8)
    return any(page >> 62 for page in array("Q", pages.read((end - start) // _PAGE * 8)))


def labels_in_memory(pid: int, labels: frozenset[bytes]) -> set[bytes]:
    """The labels that a process has in its memory, in any width of letters."""
    found: set[bytes] = set()
    folder = Path(f"/proc/{pid}")
    with (folder / "mem").open("rb", buffering=0) as memory, (folder / "pagemap").open("rb", 0) as pages:
        for line in (folder / "maps").read_text().splitlines():
            addresses, access, *_, name = (*line.split(maxsplit=5), "")[:6]
            if "r" not in access or name.startswith(("[vvar", "[vsyscall")):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            # A gigabyte that an allocator has set aside is read in no time where nothing was ever put. All of
            # it is looked at before any is read, since a page that is read is there from then on.
            used = [
                at
                for at in range(start, end, _CHUNK)
                if name[:1] not in ("", "[") or has_been_used(pages, at, min(at + _CHUNK, end))
            ]
            for at in used:
                # A little of the next one, for what lies across the border.
                more = 4 * (len(MARK) + LETTERS) if at + _CHUNK in used else 0
                try:
                    memory.seek(at)
                    data = memory.read(min(_CHUNK + more, end - at))
                except (OSError, OverflowError):
                    continue  # a mapping of a device, or of a file that has become shorter
                for width, mark in _MARKS.items():
                    for hit in re.finditer(re.escape(mark), data):
                        label = data[hit.start() : hit.start() + width * (len(MARK) + LETTERS) : width]
                        if label in labels:
                            found.add(label)
    return found


def found_in(proxy: Filter, labels: list[str]) -> dict[str, int]:
    """How many labels each of the filter's processes holds; those that hold none are left out."""
    wanted = frozenset(label.encode() for label in labels)
    holding = {}
    for pid in processes(proxy.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if found := labels_in_memory(pid, wanted):
                holding[command_of(pid)] = len(found)
    return holding


def long_lived(proxy: Filter) -> bool:
    """Whether only those processes are there that stay."""
    of_feeds = [each for each in processes(proxy.process.pid) if "service.process" in command_of(each)]
    alone = all(len(processes(each)) == 1 for each in of_feeds)
    compile_ = ("feeds.refresh", "lists.allows")
    return alone and not any(
        name in command_of(each) for each in processes(proxy.process.pid) for name in compile_
    )


def found_at_rest(proxy: Filter, labels: list[str]) -> dict[str, int]:
    """The same while only those processes are there that stay: others compile, and have what they compile."""
    while True:
        wait_for(lambda: long_lived(proxy), "the end of those that compile")
        before = processes(proxy.process.pid)
        found = found_in(proxy, labels)
        if processes(proxy.process.pid) == before and long_lived(proxy):
            return found


def in_force(proxy: Filter, name: str, entries: int) -> Callable[[], bool]:
    return lambda: bool(re.search(rf"list {name}\S*: {entries} entries in force", proxy.log()))


@needs_root
def test_the_search_finds_what_is_there() -> None:
    labels = {width: made_list(width, 1000)[1] for width in _WIDTHS}
    kept = ["".join(f"ab{label}cd." for label in labels[width]).encode(_WIDTHS[width]) for width in _WIDTHS]
    found = labels_in_memory(os.getpid(), frozenset(label.encode() for of in labels.values() for label in of))
    assert [sum(label.encode() in found for label in of) for of in labels.values()] == [1000] * len(kept)
    assert kept


@needs_root
def test_no_process_holds_an_entry(tmp_path: Path) -> None:
    """Whether it compiles a list, takes what another worker has compiled, or only starts the others."""
    served = tmp_path / "body" / "served"
    served.mkdir(parents=True)
    port = free_port()
    config = tmp_path / "urlward.toml"
    config.write_text(CONFIG.format(port=port, admin=free_port()))
    listed, every = made_list("list", ENTRIES)

    def put(seed: str, entries: int) -> None:
        for name in ("path", "url"):
            text, labels = made_list(f"{name} {seed}", entries)
            every.extend(labels)
            if name == "path":
                (tmp_path / "new").write_text(text)
                (tmp_path / "new").replace(tmp_path / "path.txt")
            else:
                publish(served, "url.txt.gz", gzip.compress(text.encode()))

    put("first", ENTRIES)
    with (
        server(served, port),
        running(tmp_path / "filter", "--config", str(config), text=listed, executes=True) as proxy,
    ):
        wait_for(in_force(proxy, "list", ENTRIES), "the list")
        for name in ("by-path", "by-url"):
            wait_for(in_force(proxy, name, ENTRIES), "the feeds")
        wait_for(lambda: "the dashboard is at" in proxy.log(), "the process that records")
        wait_for(lambda: long_lived(proxy), "the end of those that compile")
        assert len(processes(proxy.process.pid)) >= 4
        for pid in processes(proxy.process.pid):
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0), command_of(pid)
        assert not found_at_rest(proxy, every)
        # A page that is allowed for a while, with many labels in what it is read from.
        page = f"http://{every[0]}.example/{'/'.join(every[:100])}"
        state, hour = tmp_path / "state", 3_600
        add_allow(state, local_key(state), page, hour, "x", "me", whole_host=False, now=time.time())
        wait_for(lambda: proxy.log().count("allows: 1 in force") == 2, "the allow")
        assert not found_at_rest(proxy, every)
        # Another version, of which some lines are no entries.
        put("second", ENTRIES + 1)
        changed, labels = made_list("changed", ENTRIES + 1)
        every.extend(labels)
        proxy.list_file.write_text(changed + f"?{labels[0]}.example/ =\n")
        for name in ("by-path", "by-url"):
            proxy.process.send_signal(signal.SIGHUP)
            wait_for(in_force(proxy, name, ENTRIES + 1), "the feeds")
        wait_for(in_force(proxy, "list", ENTRIES + 1), "the list")
        # And one that is refused: what is said of it must not quote it.
        bad, labels = made_list("bad", ENTRIES)
        every.extend(labels)
        refused = "".join(f"?{line} =\n" for line in bad.splitlines())
        (tmp_path / "path.txt").write_text(refused)
        proxy.list_file.write_text(refused)
        wait_for(lambda: proxy.log().count("could not be read") >= 3, "the refusals")
        assert not found_at_rest(proxy, every)
