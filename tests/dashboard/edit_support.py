"""A filter's dashboard as scripts and browsers ask it, and what the filter does once that is edited."""

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from conftest import wait_for
from e2e.support import Filter, status_of

CONFIG = """# mine
include = ["more.toml"]
state = "state"

[records]
privacy = "short"
[records.days]
blocks = 30
operations = 365

[admin]
listen = "127.0.0.1:{admin}"

[[feed]]
name = "first"   # keep this
path = "first.txt"
interval = "1d"
stale_after = "4242d"
"""


class Dashboard:
    """A filter's dashboard, as a script asks it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.origin = f"http://127.0.0.1:{port}"
        self.http = urllib3.PoolManager(retries=False)
        self.cookies: dict[str, str] = {}

    @property
    def token(self) -> str:
        return (self.folder / "state/admin.token").read_text().strip()

    def ask(self, method: str, path: str, status: int = 200, /, **fields: str) -> Any:
        body = json.dumps(fields) if method == "POST" else None
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self.http.request(method, self.origin + path, headers=headers, body=body)
        assert answer.status == status, answer.data
        return json.loads(answer.data)

    def save(self, kind: str, status: int = 200, **fields: str) -> None:
        """Save a table, and wait until it is in force."""
        self.ask("POST", f"/api/configuration/{kind}", status, **fields)
        self.in_force()

    def overview(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.ask("GET", "/api/configuration")
        except urllib3.exceptions.HTTPError:
            return {"in_force": False, "said": ""}  # one process takes another's place
        return found

    def in_force(self) -> dict[str, Any]:
        def known() -> bool:
            time.sleep(0.3)  # each answer reads and checks all files, beside the reload that is waited for
            found.update(self.overview())
            return bool(found["in_force"])

        found: dict[str, Any] = {}
        wait_for(known, "the files to be in force")
        return found

    def page(self, method: str, path: str, /, **fields: str) -> urllib3.BaseHTTPResponse:
        """Ask as a browser does, with the form's hidden field and a session."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(fields) if method == "POST" else None
        answer = self.http.request(
            method, self.origin + path, headers=headers | kind, body=body, redirect=False
        )
        for cookie in answer.headers.getlist("Set-Cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def form(self, page: str, path: str, /, **fields: str) -> urllib3.BaseHTTPResponse:
        text = self.page("GET", page).data.decode()
        hidden = dict(re.findall(r'<input type="hidden" name="(_xsrf|at|seen)" value="([^"]*)"', text))
        return self.page("POST", path, **(hidden | fields))

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "state/audit.jsonl").read_text().splitlines()]


def reached(folder: Path, port: int) -> Dashboard:
    """The dashboard of a filter that was started, once that has it; the folder has its state folder."""
    dashboard = Dashboard(folder, port)
    wait_for((folder / "state/admin.token").exists, "the token")
    wait_for(lambda: dashboard.overview()["in_force"], "the dashboard")
    return dashboard


def blocked(proxy: Filter, host: str, *, is_blocked: bool = True) -> None:
    def answered() -> bool:
        status = status_of(proxy.port, f"http://{host}/")
        return status != 0 and (status == 451) is is_blocked

    wait_for(answered, f"{host} to be {'blocked' if is_blocked else 'let through'}")
