"""Python's own servers: its server of files, programs that take a target apart with urllib, and WSGI.

python origins.py FOLDER MARKER PORT PORT PORT PORT; uWSGI runs `application` of it, with the first two.
"""

import posixpath
import socketserver
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

ROOT, MARKER = Path(sys.argv[1]), sys.argv[2]


def page(path: str, query: str) -> tuple[int, bytes]:
    """What a program shows of an unescaped path."""
    path = "/" + posixpath.normpath(path).lstrip("/")
    if path.startswith("/app/"):
        return 200, MARKER.encode()
    if path == "/view.php":
        first = {name: values[0] for name, values in parse_qs(query).items()}
        listed = first.get("topic") == "q31337q" or (first.get("user_id") == "5" and first.get("a") == "1")
        return 200, MARKER.encode() if listed else b"innocent"
    try:
        return 200, (ROOT / path[1:]).read_bytes()
    except (OSError, ValueError):
        return 404, b"none"


class Files(SimpleHTTPRequestHandler):
    def __init__(self, *args: object) -> None:
        super().__init__(*args, directory=str(ROOT))

    def send_head(self) -> object:
        name = self.translate_path(self.path)
        if name.startswith(f"{ROOT}/app/"):
            self.path = "/listed.html"
        elif name.endswith(".php"):
            self.path = "/none"  # which nobody runs here
        return super().send_head()

    def log_message(self, *_: object) -> None:
        pass


class Urllib(Files):
    def asked(self) -> tuple[str, str]:
        url = urlparse(self.path)
        return unquote(url.path), url.query

    def do_GET(self) -> None:
        status, body = page(*self.asked())
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)


class Unquoted(Urllib):
    """Goes by the path of a URL that is made of what has been unescaped, as `request.url` of Starlette is."""

    def asked(self) -> tuple[str, str]:
        path, _, query = self.path.partition("?")
        path = unquote(path).replace("?", "%3F").replace("#", "%23")
        return urlsplit(f"http://{self.headers['Host']}{path}").path, query


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class ThreadingWsgiServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def application(environ: dict, start_response) -> list[bytes]:
    status, body = page(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response(f"{status} told", [("Content-Type", "text/html")])
    return [body]


def main() -> None:
    files, urllib, wsgi_port, unquoted = map(int, sys.argv[3:])
    wsgi = ThreadingWsgiServer(("127.0.0.1", wsgi_port), QuietHandler)
    wsgi.set_app(application)
    servers = [ThreadingHTTPServer(("127.0.0.1", files), Files)]
    servers += [ThreadingHTTPServer(("127.0.0.1", urllib), Urllib), wsgi]
    servers += [ThreadingHTTPServer(("127.0.0.1", unquoted), Unquoted)]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
