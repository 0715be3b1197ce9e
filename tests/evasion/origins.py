"""Two real origins over the same pages; what their own logs say is what counts.

nginx as it comes, and an Apache as lenient as it can be made: a filter does not know who stands behind
it. Every way to an origin has an address of its own, so that a line of a log can be laid to one way.
"""

import os
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data"
APACHE_MODULES = Path("/usr/lib/apache2/modules")

MARKER = "LISTED-PAGE-7F3A"
INNOCENT = "innocent-page"

LIST = """\
# Reserved names and addresses only; one of each kind of entry.
blocked.example                                 id=V-1
http://paged.example/listed.html                id=V-2
http://paged.example/dir/*                      id=V-3
http://paged.example/view?topic=q31337q           id=V-4
*/gallery/do-not-visit/*                        id=V-5
203.0.113.64/29                                 id=V-6
http://paged.example/caf%C3%A9/a%20b.html       id=V-7
http://paged.example/letters.html               id=V-8 nocase
hop.*                                           id=V-9
http://xn--bcher-kva.example/listed.html        id=V-10
"""
SECRETS = (
    "blocked.example",
    "paged.example",
    "listed.html",
    "q31337q",
    "do-not-visit",
    "203.0.113.66",
    "bcher",
)
"""What no log line of a filter may contain."""

LISTED = (
    "paged/listed.html",
    "paged/dir/index.html",
    "paged/dir/a.html",
    "paged/dir/deep/b.html",
    "paged/view-listed.html",
    "paged/café/a b.html",
    "paged/any-case.html",
    "paged/gallery/do-not-visit/1.html",
    "plain/gallery/do-not-visit/1.html",
    "blocked/index.html",
    "blocked/any.html",
    "blocked/innocent.html",
)
UNLISTED = (
    "default/index.html",
    "default/innocent.html",
    "default/listed.html",
    "paged/index.html",
    "paged/innocent.html",
    "paged/LISTED.html",
    "paged/listed.htm",
    "paged/listed.html2",
    "paged/listed.html;v=1",
    "paged/not-listed.html",
    "paged/dirs.html",
    "paged/other/listed.html",
    "paged/view-other.html",
    "paged/galleries/do-not-visit.html",
    "plain/index.html",
    "plain/innocent.html",
    "plain/listed.html",
    "plain/a b.html",
    "plain/gallery/other/1.html",
)

_SITES = {
    "default": ("default.example",),
    "paged": ("paged.example", "www.paged.example", "xn--bcher-kva.example"),
    "blocked": ("blocked.example", "*.blocked.example", "203.0.113.66", "0xcb.0.0x71.66", "3405803842"),
    "hop": ("hop.example", "hop.test", "www.hop.example"),
    "plain": ("plain.example",),
}
_PAGED_RULES = """\
    RewriteEngine on
    RewriteCond %{QUERY_STRING} (^|&)@topic@(&|$)
    RewriteRule ^/view$ /view-listed.html [END]
    RewriteRule ^/view$ /view-other.html [END]
    RewriteRule ^/letters\\.html$ /any-case.html [NC,END]
"""
_DAV = "    <Location /upload>\n        Dav On\n    </Location>\n"


@dataclass(frozen=True)
class Line:
    """A line of an origin's log: what it made of a request."""

    status: str
    file: str
    host: str
    request: str

    @property
    def listed(self) -> bool:
        """Whether this says that a listed page was served (009 is nginx's status of HTTP/0.9)."""
        return self.status in ("200", "206", "304", "009") and is_listed_file(self.file)


@cache
def is_listed_file(path: str) -> bool:
    try:
        return MARKER in Path(path.encode().decode("unicode_escape").encode("latin-1").decode()).read_text()
    except (OSError, ValueError):
        return False


@dataclass
class Log:
    """An origin's log, told apart by the address that was asked."""

    path: Path
    _at: int = 0
    _lines: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, address: str, keep: bool = False) -> list[Line]:
        """The lines about an address since they were last taken."""
        with self._lock:
            with self.path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            self._at += len(data)
            for line in data.decode(errors="replace").splitlines():
                asked, *rest = line.split("\t", 4)
                if len(rest) == 4:
                    self._lines[asked].append(Line(*rest))
            return list(self._lines[address]) if keep else self._lines.pop(address, [])


def write_pages(www: Path) -> None:
    """The same pages for both."""
    for names, text in ((LISTED, MARKER), (UNLISTED, INNOCENT)):
        for name in names:
            path = www / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n" * 8)
    for site in ("paged", "plain"):
        (www / site / "upload").mkdir(exist_ok=True)
        # An Apache that was started by root serves as somebody else.
        (www / site / "upload").chmod(0o777)


def _topic() -> str:
    """``topic=q31337q`` as a program behind an origin reads it: percent-decoded."""

    def spelled(c: str) -> str:
        digits = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{ord(c):02x}")
        return f"({c}|%{digits})"

    return "".join(map(spelled, "topic")) + "=" + "".join(map(spelled, "q31337q"))


def _fill(name: str, **values: str) -> str:
    text = (DATA / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key.replace('_', '-')}@", value)
    return text


def nginx_config(
    folder: Path, addresses: Sequence[str], ports: tuple[int, int], listed: Sequence[str]
) -> str:
    """Sites by name on all addresses, and addresses that are listed themselves."""
    http, https = ports
    plain = [f"listen {a}:{http}@;\n" for a in addresses] + [f"listen {a}:{https} ssl@;\n" for a in addresses]
    return _fill(
        "nginx.conf",
        topic=_topic(),
        listen_default="".join(plain).replace("@", " default_server"),
        listen="".join(plain).replace("@", ""),
        listen_listed="".join(f"listen {a}:{http};\nlisten {a}:{https} ssl;\n" for a in listed),
        www=str(folder / "www"),
        folder=str(folder),
    )


def apache_config(folder: Path, addresses: Sequence[str], ports: tuple[int, int]) -> str:
    """The same sites for Apache."""
    sites = []
    for port in ports:
        where = " ".join(f"{a}:{port}" for a in addresses)
        for site, (name, *others) in _SITES.items():
            root = folder / "www" / ("blocked" if site == "hop" else site)
            sites.append(
                f"<VirtualHost {where}>\n    ServerName {name}\n"
                + (f"    ServerAlias {' '.join(others)}\n" if others else "")
                + f"    DocumentRoot {root}\n    CustomLog {folder}/apache.log seen\n"
                + ("    SSLEngine on\n" if port == ports[1] else "")
                + (_PAGED_RULES.replace("@topic@", _topic()) if site == "paged" else "")
                + (_DAV if site in ("paged", "plain") else "")
                + "</VirtualHost>\n"
            )
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    return _fill(
        "apache.conf",
        user=user,
        modules=str(APACHE_MODULES),
        listen="".join(f"Listen {a}:{p}\n" for a in addresses for p in ports),
        sites="".join(sites),
        folder=str(folder),
    )


def missing() -> str:
    """What is not installed, or empty."""
    tools = [tool for tool in ("nginx", "apache2") if not shutil.which(tool)]
    if not (APACHE_MODULES / "mod_http2.so").exists():
        tools.append("Apache's modules")
    return ", ".join(tools)


@contextmanager
def started(command: Sequence[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server in the foreground, ended with the block."""
    with (folder / "server.out").open("ab") as out:
        process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
