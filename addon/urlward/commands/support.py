"""``urlward support``: a bundle for whoever helps, without secrets, entries and clients.

Of the configuration it has what `urlward.config.tables` lets out; every other text goes through the
`Scrubber`, which takes out whatever could name an entry, a client, a host, a person or a secret. It knows
which words may stay, and not which have to go: this program's own words, numbers, times, and the names of
feeds and lists. A host, an address, a path, a token and a name that somebody has chosen are none of these.
"""

import argparse
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from urlward.commands.arguments import DONE, Command, add_state_arguments
from urlward.commands.doctor import together
from urlward.config import SYSTEM, Config, ConfigError, configured, is_key
from urlward.config.tables import shareable
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError, fault_text
from urlward.options import given_path
from urlward.process import module_command
from urlward.regular import write_new
from urlward.state.folder import state_folder

GONE = "[…]"
"""In place of what was taken out."""

_WORD = re.compile(r"[A-Za-z][A-Za-z_'-]*[A-Za-z]|[A-Za-z]")
_TOKEN = re.compile(r"[^\s\"'`(){}\[\],;<>|=“”…]+")
_BEFORE, _BEHIND = ".:!?#+*/-", ".:!?*/-"
_NUMBER = re.compile(
    r"""
    [+-]?[0-9]{1,12}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,3})?(%|ms|[smhd]|[kMG]i?B|B)?
    | [0-9]{4}-[0-9]{2}-[0-9]{2}([T_][0-9:.]{5,15}(Z|[+-][0-9:]{4,6})?)?   # RFC 3339
    | [0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?Z?
    | [0-9]{1,9}/[0-9]{1,9}
    """,
    re.VERBOSE | re.ASCII,
).fullmatch
_METRIC = re.compile(r"urlward_[a-z_]+").fullmatch


class Scrubber:
    """Scrubber of texts and of what JSON has.

    Args:
        names: further words that may stay; a name with a dot, which a host could have, is not taken.
        known: tells whether a word may stay that is none of these.
    """

    def __init__(self, names: Iterable[str] = (), known: Callable[[str], bool] = lambda _: False) -> None:
        self._words = own_words() | {name for name in names if re.fullmatch(r"[\w-]{1,64}", name)}
        self._known = known

    def text(self, text: str) -> str:
        """Text without what may not stay."""
        return _TOKEN.sub(lambda found: self._token(found[0]), text)

    def value(self, value: Any) -> Any:
        """What JSON has, its texts and names without what may not stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return value if value is None or isinstance(value, bool | int | float) else GONE

    def _token(self, token: str) -> str:
        if self._stays(token):
            return token
        rest = token.lstrip(_BEFORE)
        middle = rest.rstrip(_BEHIND)
        before, after = token.removesuffix(rest), rest.removeprefix(middle)
        return f"{before}{middle if self._stays(middle) else GONE}{after}"

    def _stays(self, token: str) -> bool:
        return (
            not token
            or token in self._words
            or token.lower() in self._words
            or _NUMBER(token) is not None
            or (_METRIC(token) is not None and all(part in self._words for part in token.split("_")))
            or self._known(token)
        )


@cache
def own_words() -> frozenset[str]:
    """Words of this program's own source code."""
    found: set[str] = set()
    for path in Path(__file__).parents[1].rglob("*.py"):
        for word in _WORD.findall(path.read_text(encoding="utf-8", errors="replace")):
            found.add(word)
            found.update(word.split("_"))
    return frozenset(found)


WITHIN = 30.0
"""Seconds that a part may take: what hangs is often what the bundle is about."""

_LATE = {"error": f"no answer within {WITHIN:.0f} s"}

MOST_FILES = 2_000
MOST_LINES = 2_000
_EVENTS = 200
_LIBRARIES = (
    "mitmproxy", "cryptography", "pyOpenSSL", "tornado", "SQLAlchemy", "pydantic", "psycopg", "valkey",
)  # fmt: skip
_UNIT = "urlward.service"

_ABOUT = """A bundle for support of urlward. Nothing in it is meant to name an entry, a client, a host, a
person or a secret: of texts it has the program's own words, numbers and the names of feeds and lists; […] is
in place of the rest, and "(set, not shown)" of what the configuration says. Look through it before you send
it.
"""


def add_support_command(command: Command) -> None:
    """Declare ``urlward support``."""
    support = command(
        "support", _support, "Write a bundle for whoever helps: no secrets, entries or clients."
    )
    support.add_argument(
        "-o",
        "--output",
        required=True,
        type=lambda text: text if text == "-" else given_path(text),
        metavar="FILE",
        help='a new .zip; "-" is standard output',
    )
    add_state_arguments(support)


def _support(args: argparse.Namespace) -> int:
    data, late = bundle(args.config, args.state)
    if late:
        print(f"urlward: no answer within {WITHIN:.0f} s, left out: {', '.join(late)}", file=sys.stderr)
    if args.output == "-":
        if sys.stdout.isatty():
            raise UrlwardError("-o: a terminal takes no .zip: name a file")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return DONE
    path: Path = args.output
    try:
        write_new(path, data, 0o600)
    except OSError as e:
        raise UrlwardError(f"{path}: {e.strerror or e}") from e
    print(f"{path}: {len(data)} bytes; look through it before you send it")
    return DONE


def bundle(path: Path | None, state: Path | None = None) -> tuple[bytes, list[str]]:
    """Make a bundle, a ZIP file.

    Args:
        path: of the configuration, where it is not the machine's.
        state: the state folder, where it is not as configured.

    Returns:
        It, and the names of its parts that took too long to be in it.
    """
    problems: list[str] = []
    try:
        path, config = configured(path)
    except ConfigError as e:
        path, config, problems = path or SYSTEM, Config(), list(e.lines)
    folder = state or state_folder(config.state)
    names = [feed.name for feed in config.feed] + [Path(one).stem for one in config.list]
    scrubber = Scrubber(names, is_key)
    parts: dict[str, Callable[[], Any]] = {
        "configuration.json": lambda: shareable(config) if not problems else {"problems": problems},
        "status.json": partial(_asked, folder, "status"),
        "doctor.json": partial(_doctor, path),
        "feeds.json": partial(_feeds, config, folder),
        "alarms.json": partial(_alarms, config, folder),
        "metrics.txt": lambda: str(_asked(folder, "metrics")["text"]),
        "inside.json": partial(_asked, folder, "inside"),
        "journal.txt": _journal,
        "files.json": partial(_files, folder),
    }
    found = together({name: partial(_part, make) for name, make in parts.items()}, WITHIN)
    # What the types let out is right as it is: a format's name need not be a word of the program.
    kept = ("configuration.json",) if not problems else ()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", _ABOUT)
        archive.writestr("about.json", _json(_platform()))
        for name in parts:
            value = found.get(name, _LATE)
            value = value if name in kept else scrubber.value(value)
            archive.writestr(name, value if isinstance(value, str) else _json(value))
    return made.getvalue(), [name for name in parts if found.get(name, _LATE) == _LATE]


def _part(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except subprocess.TimeoutExpired:
        return _LATE
    except (UrlwardError, OSError) as e:
        return {"error": str(e)}
    except Exception as e:  # noqa: BLE001 - one part that fails leaves the others
        return {"error": fault_text(e)}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _platform() -> dict[str, Any]:
    """Versions of urlward, Python, the system and libraries; nothing that an operator has named."""
    os_release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "time": time_text(time.time()),
        "urlward": _version("urlward"),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "system": {name: os_release.get(name, "") for name in ("ID", "VERSION_ID")},
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg(),
        "root": os.geteuid() == 0,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _asked(state: Path, question: str) -> dict[str, Any]:
    from urlward.records.asking import ask

    return ask(state, question)


def _doctor(path: Path | None) -> Any:
    line = ["doctor", "--json", *(["--config", str(path)] if path is not None else [])]
    done = subprocess.run(  # noqa: S603 - our own
        module_command("urlward", *line), capture_output=True, text=True, check=False, timeout=WITHIN
    )
    return json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def _feeds(config: Config, state: Path) -> Any:
    from urlward.feeds.status import status

    return [status(feed, state, time.time()) for feed in config.feed]


def _alarms(config: Config, state: Path) -> Any:
    """Last alarms and gaps in the records."""
    from urlward.records.database import open_database
    from urlward.records.event import as_json
    from urlward.records.store import EventQuery
    from urlward.records.stores import searchable

    table = searchable(config.records) if config.records is not None else None
    if table is None:
        return []
    database = open_database(table, state, make=False)
    try:
        return [as_json(event) for event in database.find(EventQuery(("alarm", "gap"), limit=_EVENTS))]
    finally:
        database.close()


def _journal() -> str:
    """Last lines of the service in systemd's journal, where this user may read it."""
    tool = shutil.which("journalctl")
    if tool is None:
        return "there is no journalctl\n"
    line = [
        tool, "--unit", _UNIT, "--output", "short-iso", "--lines", str(MOST_LINES), "--no-pager", "--quiet",
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, check=False, timeout=WITHIN)  # noqa: S603 - the system's
    return (done.stdout or done.stderr).decode(errors="replace")


def _files(state: Path) -> list[dict[str, Any]]:
    """Sizes and ages of what is in the state folder; of names, what is before the dots may be anybody's."""
    found = []
    for path in sorted(state.rglob("*"))[:MOST_FILES]:
        try:
            status = path.lstat()
        except FileNotFoundError:  # such as SQLite's, which come and go
            continue
        name = [part.split(".") for part in path.relative_to(state).parts]
        found.append(
            {
                "name": name,
                "bytes": status.st_size,
                "mode": f"{status.st_mode:o}",
                "changed": time_text(status.st_mtime),
                "owner": status.st_uid,
            }
        )
    return found
