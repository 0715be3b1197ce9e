"""Where kernel rules redirect to: both families on every address, a port where no TLS is relayed unread,
and what nobody has redirected."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.conftest import trust
from e2e.support import ENDS_WITHIN, Authority, children_of, running
from e2e.test_modes import CLIENT, GATEWAY, ORIGIN, ip, may_make_namespaces, namespaces

RULES = """\
flush ruleset
table inet uw {
    chain pre {
        type nat hook prerouting priority dstnat;
        iifname g0 ip daddr 203.0.113.20 tcp dport 443 redirect to :8090
        iifname g0 ip6 daddr 2001:db8:1::20 tcp dport 443 redirect to :8090
        iifname g0 tcp dport { 80, 443 } redirect to :8080
    }
}
"""

LIST = """\
blocked.example id=T-1
http://paged.example/listed.html id=T-2
203.0.113.66 id=T-3
2001:db8:1::66 id=T-3
"""

CLIENT_PROGRAM = """\
import json, socket, ssl, sys
ca, ours = sys.argv[1:3]
def request(s, host, path):
    s.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
    return s.recv(65536).split(b" ", 2)[1].decode()
def http(address, host, path="/", port=80):
    with socket.create_connection((address, port), 30) as s:
        return request(s, host, path)
def https(address, sni, host, path="/"):
    context = ssl.create_default_context(cafile=ca)
    context.load_verify_locations(cafile=ours)
    context.check_hostname = sni is not None
    with socket.create_connection((address, 443), 30) as s, context.wrap_socket(s, server_hostname=sni) as t:
        whose = "ours" if "mitmproxy" in str(t.getpeercert()["issuer"]) else "origin"
        return whose + " " + request(t, host, path)
def direct(address, port):
    # Whether anything is said or not, it is closed at once.
    with socket.create_connection((address, port), 30) as s:
        return repr(s.recv(65536))
results = []
for name, *arguments in json.load(sys.stdin):
    try:
        results.append(globals()[name](*arguments))
    except (OSError, IndexError) as e:
        results.append("timeout" if isinstance(e, TimeoutError) else "closed")
print(json.dumps(results))
"""


def asked(origin: str, strict: str, listed: str, gateway: str) -> list[tuple[list[object], str]]:
    """What is asked for at the addresses of one family, and what comes of it.

    Args:
        origin: of the origin; its TLS connections are decided by their SNI.
        strict: likewise; none of its TLS connections is relayed unread.
        listed: likewise; it is listed.
        gateway: where the filter runs, and no origin listens.
    """
    plain, paged, blocked, page = "plain.example", "paged.example", "blocked.example", "/listed.html"
    return [
        (["http", origin, plain], "200"),
        (["http", origin, blocked], "451"),
        (["http", origin, paged, page], "451"),
        (["http", listed, plain], "451"),
        (["https", origin, plain, plain], "origin 200"),
        (["https", origin, blocked, blocked], "ours 451"),
        (["https", origin, paged, paged, page], "ours 451"),
        # Hidden behind another name.
        (["https", origin, plain, paged, page], "origin 200"),
        (["https", strict, plain, paged, page], "ours 451"),
        (["https", strict, None, paged, page], "ours 451"),
        (["https", strict, plain, plain], "ours 200"),
        (["https", strict, paged, paged, "/other"], "ours 200"),
        (["http", strict, paged, page], "451"),
        (["http", strict, plain], "200"),
        # The gateway's own address, which may be that of the block page.
        (["http", gateway, blocked], "451"),
        (["http", gateway, plain], "502"),
        (["https", gateway, blocked, blocked], "ours 451"),
        (["https", gateway, plain, plain], "closed"),
        (["direct", gateway, 8080], "b''"),
        (["direct", gateway, 8090], "b''"),
        (["direct", origin, 8080], "b''"),
    ]


@pytest.mark.skipif(
    not may_make_namespaces() or not Path("/proc/net/if_inet6").exists(),
    reason="needs root, ip, nft and IPv6",
)
def test_two_ports_of_both_families(tmp_path: Path, authority: Authority) -> None:
    cases = [
        *asked("203.0.113.10", "203.0.113.20", "203.0.113.66", "192.0.2.254"),
        *asked("2001:db8:1::10", "2001:db8:1::20", "2001:db8:1::66", "2001:db8::254"),
    ]
    inside = ["ip", "netns", "exec"]
    addresses = ["203.0.113.10", "203.0.113.20", "2001:db8:1::10", "2001:db8:1::20"]
    with namespaces():
        for name, link, address in (
            (CLIENT, "c0", "2001:db8::1/64"),
            (GATEWAY, "g0", "2001:db8::254/64"),
            (GATEWAY, "lo", "203.0.113.20/32"),
            *((GATEWAY, "lo", f"2001:db8:1::{last}/128") for last in (10, 20, 66)),
        ):
            ip("-n", name, "addr", "add", address, "dev", link, *["nodad"] * (":" in address))
        ip("-n", CLIENT, "-6", "route", "add", "default", "via", "2001:db8::254")
        subprocess.run([*inside, GATEWAY, "nft", "-f", "-"], input=RULES, text=True, check=True)
        server = subprocess.Popen(
            [*inside, GATEWAY, sys.executable, "-c", ORIGIN, str(authority.folder), *addresses],
            stdout=subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            with running(
                tmp_path,
                *trust(authority),
                *("--listen", ":8080", "--workers", "2", "--set", "urlward_intercept_port=8090"),
                text=LIST,
                modes=["transparent@8080", "transparent@8090"],
                namespace=GATEWAY,
            ) as proxy:
                wait_for(lambda: proxy.log().count("listening on") == 8, "both workers on both ports")
                program = [sys.executable, "-c", CLIENT_PROGRAM, str(authority.certificate), str(proxy.ca)]
                result = subprocess.run(
                    [*inside, CLIENT, *program],
                    input=json.dumps([case for case, _ in cases]),
                    capture_output=True,
                    text=True,
                    timeout=180,
                    check=True,
                )
                found = json.loads(result.stdout)
                assert [(case, got) for (case, _), got in zip(cases, found, strict=True)] == cases
                assert " error " not in proxy.log()
                assert "ended with" not in proxy.log()
                # Had anything gone round in a circle, it would have left connections.
                for worker in children_of(proxy.process.pid):
                    fds = Path(f"/proc/{worker}/fd")
                    wait_for(lambda fds=fds: len(list(fds.iterdir())) < 40, "them to be closed")  # type: ignore[misc]
        finally:
            server.kill()
            server.wait(ENDS_WITHIN)
