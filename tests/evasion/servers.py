"""Servers that read request targets in ways of their own, over one folder of pages, on loopback.

Each has a listed page, a listed folder, a folder of which a program answers all, and a page with
parameters. What they make of a target is asked of them, not modelled.
"""

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from conftest import free_port, wait_for
from evasion.origins import APACHE_MODULES, MARKER, started

DATA = Path(__file__).parent / "data" / "readings"
TOMCAT = Path("/usr/share/tomcat10")
# The newest: Debian's compiler of pages for Tomcat is built for one of the last.
JAVA = max(
    Path("/usr/lib/jvm").glob("*/bin/java"),
    key=lambda java: [int(n) for n in re.findall(r"\d+", java.parts[-3].replace("-1.", "-"))][:1],
    default=Path("/usr/bin/java"),
)
UWSGI_PLUGIN = Path("/usr/lib/uwsgi/plugins/python3_plugin.so")
PHP_FPM = next(iter(sorted(Path("/usr/sbin").glob("php-fpm*"))), None)

HOST = "listed.test"
LIST = """\
http://listed.test/listed.html
http://listed.test/deep/listed-page.html
http://listed.test/tree/*
http://listed.test/app/*
http://listed.test/app.html
http://listed.test/caf%C3%A9/a%20b.html
http://listed.test/view.php?topic=q31337q
http://listed.test/view.php?user_id=5&a=1
"""
_LISTED = (
    "listed.html",
    "deep/listed-page.html",
    "tree/x.html",
    "tree/deep/y.html",
    "app.html",
    "café/a b.html",
)
_UNLISTED = ("innocent.html", "x.html", "deep/x.html", "listed.htm", "listing.html", "trees/x.html")

Start = Callable[[ExitStack, Path, dict[str, str]], None]


@dataclass(frozen=True)
class Server:
    """A program, the origins that it serves as, and how it is started.

    Attributes:
        needs: files or commands without which it cannot be started, with their Debian package.
        origins: names of the origins; each gets a port.
        start: starts it, given the folder and what configurations are filled in with.
    """

    needs: dict[str, str]
    origins: tuple[str, ...]
    start: Start

    def missing(self) -> str:
        """Debian packages that are not installed, or empty."""
        return ", ".join(
            sorted(
                {
                    package
                    for name, package in self.needs.items()
                    if not shutil.which(name) and not Path(name).exists()
                }
            )
        )


def _run(stack: ExitStack, folder: Path, *command: object) -> None:
    stack.enter_context(started(list(map(str, command)), folder))


def _filled(name: str, folder: Path, values: dict[str, str], into: str = "") -> Path:
    text = (DATA / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    path = folder / (into or name)
    path.write_text(text)
    return path


def _php_fpm(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    _run(stack, folder, PHP_FPM, "-F", "-R", "-n", "-y", _filled("php-fpm.conf", folder, values))

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as one, suppress(OSError):
            one.connect(str(folder / "php.sock"))
            return True
        return False

    wait_for(listens, "PHP")


def _nginx(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    _filled("fastcgi.conf", folder, values)
    _run(
        stack,
        folder,
        "nginx",
        "-p",
        folder,
        "-e",
        folder / "start.log",
        "-c",
        _filled("nginx.conf", folder, values),
    )


def _apache(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    _run(stack, folder, "apache2", "-DFOREGROUND", "-f", _filled("apache.conf", folder, values))


def _lighttpd(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    on = "normalize-unreserved normalize-required ctrls-reject path-2f-decode path-dotseg-remove"
    options = ", ".join(f'"url-{name}" => "enable"' for name in (*on.split(), "invalid-utf8-reject"))
    for name, how in (("lighttpd", f"server.http-parseopts = ( {options} )"), ("lighttpd-default", "")):
        more = values | {"port": values[name], "options": how}
        _run(stack, folder, "lighttpd", "-D", "-f", _filled("lighttpd.conf", folder, more, f"{name}.conf"))


def _caddy(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    _run(
        stack,
        folder,
        "env",
        f"HOME={folder}",
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        _filled("Caddyfile", folder, values),
    )


def _php(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    for name, router in (("php", ()), ("php-route", (_filled("route.php", folder, values),))):
        _run(
            stack, folder, "php", "-n", "-q", "-S", f"127.0.0.1:{values[name]}", "-t", values["www"], *router
        )


def _node(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    ports = [values[f"node-{how}"] for how in ("url", "parse", "split", "first", "decoded")]
    _run(stack, folder, "node", DATA / "node.js", values["www"], MARKER, *ports)


def _python(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    ports = [values[f"python-{how}"] for how in ("files", "urllib", "wsgi", "unquoted")]
    _run(stack, folder, sys.executable, DATA / "origins.py", values["www"], MARKER, *ports)


def _uwsgi(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    options = ("--plugin", "python3", "--need-app", "--disable-logging", "--die-on-term", "--threads", "4")
    app = ("--wsgi-file", DATA / "origins.py", "--pyargv", f"{values['www']} {MARKER}")
    _run(stack, folder, "uwsgi-core", *options, "--http-socket", f"127.0.0.1:{values['uwsgi']}", *app)


def _civetweb(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    where = f"127.0.0.1:{values['civetweb']}"
    _run(stack, folder, "civetweb", "-document_root", values["www"], "-listening_ports", where)


def _tomcat(stack: ExitStack, folder: Path, values: dict[str, str]) -> None:
    base = folder / "tomcat"
    for name in ("conf", "logs", "temp", "work", "webapps"):
        (base / name).mkdir(parents=True)
    shutil.copytree(values["www"], base / "www")
    (base / "www" / "view.php").unlink()
    (base / "www" / "WEB-INF").mkdir()
    for name in ("web.xml", "view.jsp"):
        _filled(name, base / "www" / "WEB-INF", values)
    (base / "www" / "WEB-INF" / "app.jsp").write_text(
        f'<%= request.getPathInfo() == null ? "innocent" : "{MARKER}" %>'
    )
    _filled("server.xml", base / "conf", values)
    shutil.copy(TOMCAT / "etc" / "web.xml", base / "conf" / "web.xml")
    _run(
        stack, folder, JAVA, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx96m",
        f"-Dcatalina.base={base}", f"-Dcatalina.home={TOMCAT}", f"-Djava.io.tmpdir={base}/temp",
        "-cp", f"{TOMCAT}/bin/bootstrap.jar:{TOMCAT}/bin/tomcat-juli.jar",
        "org.apache.catalina.startup.Bootstrap", "start",
    )  # fmt: skip


_FPM = {str(PHP_FPM or "php-fpm"): "php-fpm"}
SERVERS = (
    Server(
        {"nginx": "nginx-light"} | _FPM,
        ("nginx", "nginx-unmerged", "nginx-captured", "nginx-uri", "nginx-before-node", "nginx-before-first"),
        _nginx,
    ),
    Server(
        {"apache2": "apache2", str(APACHE_MODULES / "mod_proxy_fcgi.so"): "apache2"} | _FPM,
        ("apache", "apache-kept", "apache-decoded"),
        _apache,
    ),
    Server({"lighttpd": "lighttpd"} | _FPM, ("lighttpd", "lighttpd-default"), _lighttpd),
    Server({"caddy": "caddy"} | _FPM, ("caddy",), _caddy),
    Server({"php": "php-cli"}, ("php", "php-route"), _php),
    Server({"node": "nodejs"}, ("node-url", "node-parse", "node-split", "node-first", "node-decoded"), _node),
    Server({}, ("python-files", "python-urllib", "python-wsgi", "python-unquoted"), _python),
    Server(
        {"uwsgi-core": "uwsgi-core", str(UWSGI_PLUGIN): "uwsgi-plugin-python3"},
        ("uwsgi",),
        _uwsgi,
    ),
    Server({"civetweb": "civetweb"}, ("civetweb",), _civetweb),
    Server(
        {str(JAVA): "default-jre-headless", str(TOMCAT / "bin"): "tomcat10"},
        ("tomcat", "tomcat-lenient"),
        _tomcat,
    ),
)
ORIGINS = tuple(name for server in SERVERS for name in server.origins)


def missing() -> dict[str, str]:
    """Origins that cannot be started here, and the packages that they need."""
    found = {name: server.missing() for server in SERVERS for name in server.origins}
    if "node" in SERVERS[5].needs and found["node-url"]:
        for name in ("nginx-before-node", "nginx-before-first"):
            found[name] = found[name] or found["node-url"]
    return {name: packages for name, packages in found.items() if packages}


@contextmanager
def running_origins(folder: Path) -> Iterator[dict[str, int]]:
    """Start every server that is installed; ports by origin.

    Args:
        folder: empty, and readable by servers that were started by root and gave it away.
    """
    www = folder / "www"
    for names, text in ((_LISTED, MARKER), (_UNLISTED, "innocent")):
        for name in names:
            (www / name).parent.mkdir(parents=True, exist_ok=True)
            (www / name).write_text(f"{text}\n")
    ports = {name: free_port() for name in ORIGINS}
    root = os.geteuid() == 0
    values = {name: str(port) for name, port in ports.items()} | {
        "folder": str(folder),
        "www": str(www),
        "marker": MARKER,
        "modules": str(APACHE_MODULES),
    }
    _filled("view.php", www, values)
    absent = missing()
    with ExitStack() as stack:
        if PHP_FPM is not None:
            _php_fpm(stack, folder, values | {"user": "user = www-data\ngroup = www-data" if root else ""})
        for server in SERVERS:
            if not server.missing():
                server.start(
                    stack, folder, values | {"user": "User www-data\nGroup www-data" if root else ""}
                )
        there = {name: port for name, port in ports.items() if name not in absent}
        for name, port in there.items():
            wait_for(lambda port=port: answer_of(port, b"/listed.html") == "listed", name)
        yield there


def answer_of(port: int, target: bytes, timeout: float = 20.0) -> str:
    """What listens on a port answers a target: ``listed``, ``innocent``, or empty for no page."""
    request = b"GET " + target + b" HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nConnection: close\r\n\r\n"
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        while data := connection.recv(65536):
            answer += data
    if answer[9:12] != b"200":
        return ""
    return "listed" if MARKER.encode() in answer else "innocent" if b"innocent" in answer else ""
