import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from e2e.test_modes import may_make_namespaces
from urlward.cli import main
from urlward.gateway.nft import Nft

type Run = Callable[..., tuple[int, str, str]]

CONFIGURATION = """\
listen = ":8080"
[gateway]
interfaces = ["lan0"]
steer = true
on_stop = "{on_stop}"
dns = {{ resolvers = ["203.0.113.53"] }}
"""

needs_root = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "net.toml"
    path.write_text(CONFIGURATION.format(on_stop="down"))
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, out, err

    return run


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steer = true", ":1: mode: steering needs transparent, dns@5353; that is the default"),
        ('interfaces = ["a b"]', ":3: gateway.interfaces: 'a b' is not the name of an interface"),
        ('steer = true\ndns = { resolvers = ["x"] }', ":1: mode: steering needs"),
    ],
)
def test_a_setting_that_does_not_do_is_named_with_its_line(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "net.toml"
    mode = "regular" if "steer" in text else "transparent"
    path.write_text(f'mode = ["{mode}"]\n[gateway]\n{text}\n')
    for command in ("print", "up"):
        code, out, err = run("gateway", command, "--config", str(path))
        assert (code, out) == (2, "")
        assert err.startswith(f"urlward: {path}{said}")


def test_the_machines_configuration_where_none_is_given(
    run: Run, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is imported only now would keep the other path, for all tests behind this one.
    import_module("urlward.gateway.service")
    monkeypatch.setattr("urlward.config.SYSTEM", Path(config))
    assert run("gateway", "print")[:2] == run("gateway", "print", "--config", config)[:2]
    code, out, _ = run("gateway", "install", "--print")
    assert (code, f"gateway up --config {config}\n" in out) == (0, True)


@needs_root
def test_up_status_down(run: Run, nft: Nft, config: str) -> None:
    # A namespace has at first what the machine has.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    code, out, _ = run("gateway", "status")
    assert (code, out.splitlines()[0].split()) == (1, ["up", "no"])
    code, out, err = run("gateway", "up", "--config", config)
    assert (code, out) == (0, "rules in force: lan0, ports 80, 443 to 8080, DNS to 5353, fail open\n")
    assert [line.split()[1] for line in err.splitlines()] == [
        "gateway.interfaces:",
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
    ]
    assert run("gateway", "up", "--config", config)[1].startswith("rules replaced: ")
    assert run("gateway", "status")[0] == 1, "nobody lives"
    nft.run("add element inet urlward alive { 6 timeout 60s }")
    assert run("gateway", "status")[0] == 1, "no word of a canary"
    nft.run('add element inet urlward canary { 0 timeout 60s comment "ok" }')
    code, out, _ = run("gateway", "status", "--json", "--config", config)
    found = json.loads(out)
    assert (code, found["canary"]) == (1, {"worker 0": "ok"}), "nobody comes in where there is no interface"
    nft.run('add element inet urlward canary { 1 timeout 60s comment "DNS: no answer" }')
    code, out, _ = run("gateway", "status")
    assert code == 1
    assert ["canary", "worker 0 ok, worker 1 DNS: no answer"] in [
        line.split(None, 1) for line in out.splitlines()
    ]
    assert (found["up"], found["alive"], found["as_configured"]) == (True, True, True)
    assert (found["setup"]["listen"], found["setup"]["fail"]) == (8080, "open")
    assert (found["missing_interfaces"], found["sysctl"]["net.ipv4.ip_forward"]) == (["lan0"], "0")
    assert found["steered"] == {"ipv4": 0, "ipv6": 0}
    assert "lan0" in run("gateway", "status")[1], "which the rules say themselves"
    subprocess.run(["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan9"], check=True)
    nft.run("delete element inet urlward canary { 1 }")
    assert run("gateway", "status", "--config", config)[0] == 0
    subprocess.run(["ip", "link", "add", "br0", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", "lan0", "master", "br0"], check=True)
    code, out, _ = run("gateway", "status", "--config", config)
    assert code == 1, "nobody comes in by that name"
    assert ["ports", "of", "others", "lan0", "br0"] in [line.split() for line in out.splitlines()]
    assert "urlward: gateway.interfaces: lan0 is a port of br0" in run("gateway", "up", "--config", config)[2]
    subprocess.run(["ip", "link", "set", "lan0", "nomaster"], check=True)
    assert run("gateway", "status", "--config", config)[0] == 0
    subprocess.run(["ip", "link", "set", "lan0", "up"], check=True)
    subprocess.run(["ip", "route", "add", "192.0.2.0/24", "dev", "lan0"], check=True)
    code, out, _ = run("gateway", "status", "--config", config)
    assert code == 1, "what is redirected there the kernel drops"
    assert ["no", "ipv4", "address", "lan0"] in [line.split() for line in out.splitlines()]
    subprocess.run(["ip", "addr", "add", "192.0.2.1/32", "dev", "lan0"], check=True)
    code, out, _ = run("gateway", "status", "--config", config)
    assert code == 1, "what is not redirected goes nowhere"
    assert ["not", "forwarding", "lan0"] in [line.split() for line in out.splitlines()]
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert run("gateway", "status", "--config", config)[0] == 0
    other = "table inet filter {\nchain input { type filter hook input priority 0; policy drop; }\n}"
    subprocess.run(["nft", "-f", "-"], input=other, text=True, check=True)
    lacking = "nft insert rule inet filter input iifname lan0 udp dport { 5353 } accept"
    code, out, _ = run("gateway", "status", "--config", config)
    assert code == 0, "advice"
    assert lacking in out
    assert lacking in run("gateway", "up", "--config", config)[2]
    nft.run("delete table inet filter")
    nft.run("delete element inet urlward alive { 6 }")
    code, out, _ = run("gateway", "status")
    assert (code, "worker 0 ok" in out) == (1, False), "the last word of a worker that lives no more"
    nft.run("add element inet urlward alive { 6 timeout 60s }")
    nft.run("add element inet urlward contested { 6 timeout 60s }")
    assert run("gateway", "status", "--config", config)[0] == 1, "another hand keeps removing rules"
    assert run("gateway", "up", "--config", config, "--fail", "closed", "--no-steer", "--replace")[0] == 0
    found = json.loads(run("gateway", "status", "--json", "--config", config)[1])
    assert (found["as_configured"], found["setup"]["dns"], found["setup"]["fail"]) == (False, 0, "closed")
    assert run("gateway", "down") == (0, "no rules\n", "")
    assert run("gateway", "down") == (0, "no rules\n", "")
    assert nft.json("list ruleset") == []


def _not_run(*arguments: str) -> tuple[int, str]:
    """Exit code and error of a filter that does not start; a process, as its first worker is one."""
    command = [sys.executable, "-P", "-m", "urlward", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stderr


@needs_root
def test_a_second_filter(run: Run, nft: Nft, config: str) -> None:
    run("gateway", "up", "--config", config)
    nft.run("add element inet urlward alive { 6 timeout 60s }")
    code, out, err = run("gateway", "up", "--config", config, "--listen", ":9090")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "for a filter on port 8080, which lives" in err
    code, err = _not_run("--config", config, "--listen", ":9090")
    assert (code, err.count("\n")) == (2, 1)
    assert "the kernel's rules are for port 8080, this filter has 9090" in err


@needs_root
def test_a_filter_without_rules(run: Run, nft: Nft, config: str) -> None:
    for more in ((), ("--no-steer", "--mode", "transparent")):
        code, err = _not_run("--config", config, *more)
        said = [line for line in err.splitlines() if line.startswith("urlward: ")]
        # Without steering it is told too what that makes mean nothing in its file.
        assert (code, said) == (2, ["urlward: no rules in the kernel: run `urlward gateway up` first"])


@needs_root
@pytest.mark.parametrize(
    ("on_stop", "result", "left"),
    [
        ("down", "success", False),
        ("down", "", False),
        ("down", "signal", True),
        ("keep", "success", True),
        (None, "success", True),
    ],
)
def test_down_where_the_service_has_been_stopped(
    run: Run,
    nft: Nft,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_stop: str | None,
    result: str,
    left: bool,
) -> None:
    config = tmp_path / "net.toml"
    text = CONFIGURATION.format(on_stop=on_stop)
    config.write_text(text if on_stop else text.replace('on_stop = "None"\n', ""))
    run("gateway", "up", "--config", str(config))
    monkeypatch.delenv("SERVICE_RESULT", raising=False)
    if result:
        monkeypatch.setenv("SERVICE_RESULT", result)
    code, out, _ = run("gateway", "down", "--if-stopped", "--config", str(config))
    assert (code, out) == (0, "rules kept\n" if left else "no rules\n")
    assert bool(nft.json("list ruleset")) is left


@needs_root
def test_print_is_what_nft_reads(run: Run, nft: Nft, config: str) -> None:
    code, out, _ = run("gateway", "print", "--config", config, "--fail", "closed")
    assert code == 0
    nft.check(out)
    assert "reject with tcp reset" in out
    assert "redirect to :8080" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gateway.interfaces: say where clients come in"),
        ('[gateway]\ninterfaces = ["a b"]', "'a b' is not the name of an interface"),
        ("[gateway]\ninterfaces = ['x\" drop']", "is not the name of an interface"),
        ('[gateway]\ninterfaces = ["lo"]', "'lo' is not the name of an interface"),
        ('listen = "127.0.0.1:80"\n[gateway]\ninterfaces = ["lan0"]', "do not arrive at 127.0.0.1"),
        (
            '[gateway]\ninterfaces = ["lan0"]\nsteer = true\n'
            'dns = { port = 8080, resolvers = ["203.0.113.53"] }',
            "port 8080 twice",
        ),
        ('[gateway]\nclients = ["192.0.2.1/24"]', "gateway.clients"),
    ],
)
def test_what_is_refused(run: Run, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "net.toml"
    path.write_text(text)
    code, out, err = run("gateway", "print", "--config", str(path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_install(run: Run, tmp_path: Path, config: str) -> None:
    code, out, _ = run("gateway", "install", "--print", "--config", config)
    assert code == 0
    assert out.startswith("# /etc/systemd/system/urlward.service\n[Unit]\n")
    code, out, err = run("gateway", "install", "--prefix", str(tmp_path), "--config", config)
    assert code == 0
    assert [Path(line).name for line in out.splitlines()] == ["urlward.service", "urlward.conf"]
    assert err.splitlines()[-1].endswith("systemctl restart urlward")


def test_ca(run: Run, tmp_path: Path) -> None:
    confdir = str(tmp_path / "ca")
    for arguments in (("ca",), ("ca", "page", "-o", "page"), ("ca", "export", "-o", "out.pem")):
        code, out, err = run(*arguments, "--confdir", confdir)
        assert (code, out) == (2, "")
        assert err.startswith(f"urlward: {confdir}: no certificate authority in it: ")
    assert not (tmp_path / "ca").exists()
    code, out, _ = run("ca", "--confdir", confdir, "--make")
    assert code == 0
    assert out == run("ca", "--confdir", confdir)[1], "the same one"
    config = tmp_path / "net.toml"
    config.write_text('confdir = "ca"\n[page]\noperator = "Example Net"\n')
    assert run("ca", "--config", str(config))[1] == out
    certificate = tmp_path / "out.pem"
    # Flags go before or after the command's name.
    for arguments in (("ca", "--confdir", confdir, "export"), ("ca", "export", "--confdir", confdir)):
        certificate.unlink(missing_ok=True)
        assert run(*arguments, "-o", str(certificate)) == (0, f"{certificate}\n", "")
    assert certificate.read_bytes() == (tmp_path / "ca/mitmproxy-ca-cert.pem").read_bytes()
    code, out, _ = run("ca", "page", "--config", str(config), "-o", str(tmp_path / "page"))
    assert code == 0
    assert "Example Net" in (tmp_path / "page/index.html").read_text()
    shutil.rmtree(tmp_path / "ca")
    (tmp_path / "ca").write_text("")
    code, out, err = run("ca", "--confdir", confdir)
    assert (code, out, err.count("\n")) == (2, "", 1)
