"""Clients of the lab: curl over HTTP/1.1, HTTP/2 and HTTP/3, Chromium, and the lab's own in Python.

Each attempt has a tag, its User-Agent, by which the origin's log knows it again.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from urlward.lab.isolation import CHROMIUM, TEMPORARY, environment, find
from urlward.lab.scenario import ScenarioRequest
from urlward.lab.services import AUTHORITY, AgentLink
from urlward.lab.topology import inside

_HTTP = {"1": "--http1.1", "2": "--http2", "3": "--http3-only"}
_PATIENCE = 10
_BROWSER_PATIENCE = 30
_CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-domain-reliability",
    "--disable-client-side-phishing-detection", "--metrics-recording-only", "--password-store=basic",
    "--lang=en",
)  # fmt: skip
_CURL_ERRORS = {
    6: "no address", 7: "refused", 16: "http/2", 28: "timeout", 35: "tls", 52: "closed", 55: "reset",
    56: "reset", 60: "certificate not trusted", 92: "http/2", 95: "http/3", 96: "quic",
}  # fmt: skip
_CHROMIUM_ERROR = re.compile(r"\b(?:ERR|DNS)_[A-Z0-9_]+")
_ISSUER = re.compile(r"^Issuer:.*?CN ?= ?([^\n,;]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Got:
    """Response that a client has received.

    Attributes:
        status: of HTTP; 0 without an answer. Chromium does not tell: 200 where it shows a page.
        body: its beginning.
        issuer: of the certificate; empty where that is not known.
        local: address and port that it came from, ``address:port``; empty where that is not known.
        error: in a few words.
        seconds: from before name resolution to the end.
    """

    status: int = 0
    body: str = ""
    issuer: str = ""
    local: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def decrypted(self) -> bool | None:
        """Whether the certificate is another than the origin's; None where it is not known."""
        return self.issuer != AUTHORITY if self.issuer else None


def has_http3_curl() -> bool:
    """Whether this machine's curl speaks HTTP/3."""
    done = subprocess.run(  # noqa: S603 - fixed
        [find("curl") or "curl", "--version"], capture_output=True, text=True, check=False
    )
    return "HTTP3" in done.stdout


def missing(client: str, ipv6: bool) -> str:
    """Reason why this machine does not have a client; empty where it has."""
    if client == CHROMIUM.name:
        return "" if find(CHROMIUM.name) else "Chromium is not installed (Debian package chromium)"
    if client.endswith("-6") and not ipv6:
        return "this kernel has no IPv6"
    if client.startswith("curl-3") and not has_http3_curl():
        return "this curl does not speak HTTP/3"
    return ""


def send(
    client: str, request: ScenarioRequest, tag: str, machine: str, agent: AgentLink | None, source: str
) -> Got:
    """Send a request as a client does.

    Args:
        client: its name; see `urlward.lab.scenario.CLIENTS`.
        request: with a URL.
        tag: the attempt's.
        machine: the namespace that it is on.
        agent: of that machine, for Python clients.
        source: an address of the machine to come from; any where empty.
    """
    if client == CHROMIUM.name:
        return _chromium(request, tag, machine)
    if client.startswith("curl"):
        return _curl(client, request, tag, machine, source)
    assert agent is not None
    assert request.url
    start = time.monotonic()
    answer = agent.ask(
        "ask", url=request.url, family=int(client[-1]), tag=tag, host=request.host, to=request.to,
        keep=f"{request.keep}/{client}" if request.keep else None, cached=request.cached, raw=request.raw,
        method=request.method, stream=is_stream(request), source=source,
    )  # fmt: skip
    return _of_agent(answer, time.monotonic() - start)


def is_stream(request: ScenarioRequest) -> bool:
    """Whether this starts a download that goes on while other steps are done."""
    return bool(request.keep) and urlsplit(request.url or "").path.startswith("/slow/")


def _of_agent(answer: dict[str, Any], seconds: float) -> Got:
    local = answer.get("local")
    return Got(
        answer.get("status", 0), answer.get("body", ""), answer.get("issuer", ""),
        f"{local[0]}:{local[1]}" if local else "", answer.get("error", ""), seconds,
    )  # fmt: skip


def _curl(client: str, request: ScenarioRequest, tag: str, machine: str, source: str) -> Got:
    _, version, family = client.split("-")
    command = [
        find("curl") or "curl", "--silent", "--globoff", "--path-as-is", _HTTP[version], f"-{family}",
        "--max-time", str(_PATIENCE), "--user-agent", tag, "--request", request.method,
        "--write-out", "%{stderr}%{json}\n%{certs}",
    ]  # fmt: skip
    if source:
        command += ["--interface", source]
    if request.host:
        command += ["--header", f"Host: {request.host}"]
    if request.to:
        command += ["--connect-to", f"::{f'[{request.to}]' if ':' in request.to else request.to}:"]
    assert request.url
    done = subprocess.run(  # noqa: S603 - the URL is an argument behind "--"
        inside(machine, [*command, "--", request.url]), capture_output=True, check=False, env=environment()
    )
    text, _, certificates = done.stderr.decode(errors="replace").partition("\n")
    try:
        told = json.loads(text)
    except ValueError:
        return Got(error=f"curl ended with {done.returncode}")
    issuer = _ISSUER.search(certificates)
    error = ""
    if done.returncode:
        error = _CURL_ERRORS.get(done.returncode, f"curl {done.returncode}")
        if error == "tls" and "alert" in (told.get("errormsg") or "").lower():
            error = "tls alert"
    local = f"{told['local_ip']}:{told['local_port']}" if told.get("local_port") else ""
    return Got(
        told.get("response_code") or 0, done.stdout.decode(errors="replace"),
        issuer[1].strip() if issuer else "", local, error, told.get("time_total") or 0.0,
    )  # fmt: skip


def _chromium(request: ScenarioRequest, tag: str, machine: str) -> Got:
    profile = Path(tempfile.mkdtemp(prefix="chromium-", dir=TEMPORARY))
    command = [
        find(CHROMIUM.name) or CHROMIUM.name, *_CHROMIUM_FLAGS, f"--user-data-dir={profile}",
        f"--user-agent={tag}", "--dump-dom", request.url or "",
    ]  # fmt: skip
    start = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603 - fixed but for the URL
            inside(machine, command), capture_output=True, check=False, timeout=_BROWSER_PATIENCE,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        dom = done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return Got(error="timeout", seconds=time.monotonic() - start)
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    seconds = time.monotonic() - start
    if error := _CHROMIUM_ERROR.search(dom):
        return Got(error=error[0].lower().replace("_", " "), seconds=seconds)
    if not dom.strip():
        return Got(error=f"chromium ended with {done.returncode}", seconds=seconds)
    return Got(200, dom, seconds=seconds)
