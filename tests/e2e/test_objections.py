"""From a block to the objection, and from that to the page: through a filter that runs."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from conftest import free_port, wait_for
from e2e.objection_support import OPERATOR, Desks
from e2e.support import RawOrigin, Response, ask, running
from urlward.objections.objections import grant, read_objections

FORM = re.compile(rb'<form action="([^"]+)" method="post".*?name="reference" value="([^"]+)"', re.S)


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[Desks]:
    desks = Desks(tmp_path / "state")
    yield desks
    desks.close()


def test_who_is_blocked_objects_and_is_let_pass(tmp_path: Path, desks: Desks) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text(
        f'state = "state"\n[page]\noperator = "{OPERATOR}"\n[objections]\nurl = "{desks.url}"\n'
    )
    with RawOrigin() as origin:
        mode = f"reverse:http://127.0.0.1:{origin.port}@127.0.0.1:{free_port()}"
        with running(tmp_path / "run", "--config", str(config), modes=(mode, "regular")) as proxy:

            def fetch(host: str = "blocked.example") -> Response:
                head = f"GET /page HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
                return ask(proxy.ports[0], head)

            blocked = fetch()
            assert blocked.status == 451
            assert f"form-action {desks.url}" in blocked.headers["content-security-policy"]
            form = re.search(
                rb'<form action="([^"]+)" method="post".*?name="reference" value="([^"]+)"',
                blocked.body,
                re.S,
            )
            assert form is not None
            assert form[1].decode() == desks.url
            # As a browser sends it, through the filter.
            body = urlencode({"reference": form[2].decode(), "message": "blocked.example/page is mine"})
            sent = ask(
                proxy.ports[1],
                f"POST {desks.url} HTTP/1.1\r\nHost: {desks.url.split('/')[2]}\r\nOrigin: null\r\n"
                f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}",
            )
            assert sent.status == 200
            (objection,) = read_objections(tmp_path / "state")
            assert objection.reference == blocked.reference == proxy.blocks()[0]["reference"]
            grant(
                tmp_path / "state", desks.key, objection.id, "a mistake", "op",
                now=time.time(), url="http://blocked.example/page", seconds=60,
            )  # fmt: skip
            wait_for(lambda: fetch().status == 200, "the page to pass")
