"""Configurations that cannot work are refused, at the line that says so, before anything starts."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from mitmproxy import certs

from assignments.support import sighting, taken
from lists.support import artifact, key_file
from rows import each_row
from urlward import cli
from urlward.assignments import schema
from urlward.assignments.store import AssignmentStore
from urlward.config import Config, ConfigError, Problem, read_config
from urlward.config.records import AdminTable
from urlward.dashboard import handler
from urlward.objections import objections
from urlward.plan import Address, Plan
from urlward.policy import allows
from urlward.proxy import preflight, runner
from urlward.proxy.preflight import Preflight
from urlward.proxy.settings import Settings
from urlward.records import asking, holds, outbox, recorder, retention, store
from urlward.service import process
from urlward.state import audit
from urlward.state.folder import NAMES, made_folder

pytestmark = pytest.mark.usefixtures("compiles_here")

FEED = '[[feed]]\nname = "body"\nurl = "https://lists.example/body.txt"\n'
FLEET = (
    "[records]\ndays = { blocks = 1, operations = 1 }\n"
    '[fleet]\nurl = "valkeys://valkey.example"\nseal = "fleet.key"\n'
)
SIGNER = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, section 7.1
DAYS = "[records.days]\nblocks = 1\noperations = 1\n"

EXAMPLE = Path(__file__).parents[2] / "lists" / "urlward.example.toml"

_create_ca = cache(certs.create_ca)
"""A CA for all: each filter that is tried would make one of its own."""

type Check = Callable[..., tuple[int, str, str]]
type Refused = Callable[..., list[str]]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """What `run` and `run --check` both say to a configuration, without the folder's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    started: list[object] = []
    monkeypatch.setattr(runner, "run", lambda *_: started.append(1))

    def ask(text: str, *flags: str) -> list[str]:
        (tmp_path / "list.txt").write_text("listed.example id=L-1\n")
        (tmp_path / "urlward.toml").write_text(text)
        said = []
        for check in ([], ["--check"]):
            with pytest.raises(SystemExit) as raised:
                cli.main(["run", "--config", "urlward.toml", "--confdir", str(tmp_path), *flags, *check])
            out, err = capsys.readouterr()
            assert raised.value.code == 2, out
            assert "Traceback" not in err
            said.append([line.replace(f"{tmp_path}/", "") for line in err.splitlines()])
        assert said[0] == said[1]
        assert not started
        assert all(line.startswith("urlward: ") for line in said[0])
        return [line.removeprefix("urlward: ") for line in said[0]]

    return ask


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nlist = []", "2: list: empty, and there is no [[feed]]"),
        ("mode = []", "1: mode: empty: name a mode, or leave the key out for regular"),
        ('listen = ""', "1: listen: '' is not HOST:PORT"),
        ('\nlisten = "[127.0.0.1]:8080"', "2: listen: '[127.0.0.1]:8080' is not HOST:PORT: its host is"),
        ('listen = "127.0.0.256:8080"', "1: listen: '127.0.0.256:8080' is not HOST:PORT: its host is"),
        ('listen = "-x.example:8080"', "1: listen: '-x.example:8080' is not HOST:PORT: its host is"),
        ('\nlisten = "no-such.invalid:8080"', "2: listen: no-such.invalid:8080: cannot listen there: "),
        ('mode = ["regular@ 127.0.0.1:8080"]', "1: mode.0:  127.0.0.1:8080: cannot listen there: "),
        (
            'mode = ["regular@[::1]:8080"]',
            "1: mode.0: [[::1]]:8080: cannot listen there: a mode has IPv6 without brackets",
        ),
        (
            f'{DAYS}[admin]\nlisten = "no-such.invalid:8080"',
            "5: admin.listen: no-such.invalid:8080: cannot listen there: ",
        ),
        (
            '[mitmproxy]\nconnect_addr = "gateway"',
            "2: mitmproxy.connect_addr: 'gateway' is not an IP address",
        ),
        (
            '[mitmproxy]\nssl_verify_upstream_trusted_ca = "none.pem"',
            "2: mitmproxy.ssl_verify_upstream_trusted_ca: none.pem: no such file or directory",
        ),
        (
            '[mitmproxy]\nssl_verify_upstream_trusted_ca = "list.txt"',
            "2: mitmproxy.ssl_verify_upstream_trusted_ca: list.txt: no certificate or crl found",
        ),
        (
            '[mitmproxy]\nclient_certs = "list.txt"',
            "2: mitmproxy.client_certs: list.txt: ",
        ),
        (
            '[mitmproxy]\nciphers_client = "none"',
            "2: mitmproxy.ciphers_client: none: no cipher can be selected",
        ),
        ('list = [\n"list.txt",\n"none.txt"]', "3: list.1: none.txt: No such file or directory"),
        (
            'list = [\n"list.txt",\n"/"]',
            "3: list.1: /: not a regular file: only compile, import and feeds take",
        ),
        ('protected = ["none.txt"]', "1: protected.0: none.txt: No such file or directory"),
        ('protected = ["/"]', "1: protected.0: /: not a regular file: only compile, import and feeds take"),
        (
            '[[feed]]\nname = "x"\npath = "list.txt"\n[publish]\nkey = "none"\nsign = "none"',
            "5: publish.key: none: No such file or directory",
        ),
        ('key = "none"', "1: key: none: No such file or directory"),
        ('key = "list.txt"', "1: key: list.txt: "),
        ('trust = ["none"]', "1: trust: none: No such file or directory"),
        ('max_errors = "x"', "1: max_errors: 'x' is not a count"),
        ('mode = ["regular", "foo"]', "1: mode.1: 'foo': unknown mode"),
        ('[admin]\nlisten = "127.0.0.1:8088"', "1: admin: [records] is needed"),
        (
            f'listen = ":8088"\n{DAYS}[admin]\n\nlisten = "127.0.0.1:8088"',
            "7: admin.listen: 127.0.0.1:8088 is where listen (:8088) listens",
        ),
        (
            f'{DAYS}[admin]\nlisten = "localhost:8091"\n'
            '[objections]\nurl = "http://object.example/"\nlisten = "127.0.0.1:8091"',
            "8: objections.listen: 127.0.0.1:8091 is where admin.listen (localhost:8091) listens",
        ),
        (
            'listen = "127.0.0.1:8080"\nmode = ["regular", "socks5"]',
            "2: mode.1: 127.0.0.1:8080 is where mode.0 (127.0.0.1:8080) listens",
        ),
        (
            f'{DAYS}[[records.store]]\nkind = "postgresql"\nurl_file = "none"',
            "6: records.store.0.url_file: none: No such file or directory",
        ),
        (
            f"{DAYS}assignments = 1\n"
            '[records.assignments]\nkind = "postgresql"\nurl_env = "NO_SUCH_VARIABLE"',
            "7: records.assignments.url_env: NO_SUCH_VARIABLE is not in the environment",
        ),
        (
            f'{DAYS}[[records.store]]\nkind = "syslog"\naddress = "a:1"\ntls = true\nca = "none"',
            "8: records.store.0.ca: none: No such file or directory",
        ),
        ('list = ["https://lists.example/a.txt"]', "1: list.0: a URL, and a file is needed; that of a list"),
        ('\nstate = "\\u0000"', "2: state: a file's name holds no NUL"),
        (
            f'{DAYS}[[records.store]]\nkind = "jsonl"\npath = "a\\u0000"',
            "6: records.store.0.path: a file's name holds no NUL",
        ),
        ('[page]\ntemplate_dir = "none"', "2: page.template_dir: "),
        ('[pages.a]\noperator = "a\\u0000"', "2: pages.a.operator: holds a control character"),
        ('[[page.help]]\nlabel = "a"\nurl = "javascript:1"', "1: page.help: a: has the scheme 'javascript'"),
        (
            '[[feed]]\nname = "a"\npath = "a"\nformat = "xls"',
            "4: feed.0.format: 'xls' is not one of auto, ",
        ),
        (
            '[[feed]]\nname = "a"\npath = "a"\ncolumns = { url = "x" }',
            "4: feed.0.columns: needs a format to be said, such as csv",
        ),
        ('[[feed]]\nname = "a"\npath = "a"\nmax_errors = "x"', "4: feed.0.max_errors: 'x' is not a count"),
        ('[[feed]]\nname = "a"\npath = "a"\nkey = "none"', "4: feed.0.key: none: No such file"),
        ('[[feed]]\nname = "a"\npath = "a"\ntrust = ["none"]', "4: feed.0.trust: none: No such file"),
        (
            '[[feed]]\nname = "a"\nurl = "http://a.example/"\nca = "none"',
            "4: feed.0.ca: none: No such file or directory",
        ),
        (
            '[[feed]]\nname = "a"\nurl = "http://a.example/"\ntoken_file = "none"',
            "4: feed.0.token_file: none: No such file or directory",
        ),
        (
            '[[feed]]\nname = "a"\nurl = "http://a.example/"\nuser = "u"\npassword_env = "NO_SUCH_VARIABLE"',
            "5: feed.0.password_env: the variable NO_SUCH_VARIABLE is not set",
        ),
        ('state = "list.txt"', "1: state: list.txt: "),
    ],
)
def test_what_cannot_work(refused: Refused, text: str, line: str) -> None:
    (said,) = refused(text)
    assert said.startswith(f"urlward.toml:{line}")


def test_a_hook_s_folder_must_be_there(refused: Refused) -> None:
    said = refused('[gateway]\nsteer = true\n[gateway.hook]\nfolder = "none"')
    text = "urlward.toml:4: gateway.hook.folder: none: no such folder; make it, for the resolver's group"
    assert any(line.startswith(text) for line in said)


def test_a_state_folder_that_cannot_be_used(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("none/x")
    (tmp_path / "kernel").symlink_to("/sys")
    for state, why in (
        ("loop", "loop: Too many levels of symbolic links"),
        ("nowhere", "nowhere: a link to what is not there"),
        ("nowhere/x", "nowhere: a link to what is not there"),
        ("/proc/x", "/proc: the kernel's, which takes no files"),
        ("kernel/x/y", "kernel: the kernel's, which takes no files"),
    ):
        (said,) = refused(f'state = "{state}"\n{DAYS}')
        assert said.startswith("urlward.toml:1: state: ")
        assert said.endswith(why)


def test_a_state_folder_that_cannot_be_written_to(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir(0o500)
    # As for anybody but root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and str(path).endswith("kept")))
    (said,) = refused(f'state = "kept"\n{DAYS}')
    assert said == "urlward.toml:1: state: kept: cannot be written to"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("list.txt", "is list.0, or would be"),
        ("urlward.toml", "is the configuration"),
        ("linked", "is list.0"),
        ("x/../other", "is records.store.1.path"),
        ("of-feed", "is feed.0.path"),
        ("of-feed.1-is-not", ""),
        ("feed", "is feed.1.path"),
        ("state/key", "is for something else"),
        ("state/audit.jsonl", "is for something else"),
        ("state/feeds/a.ward", "is for something else"),
        ("state", "is state, or would be"),
        ("mitmproxy-ca.pem", "is the authority's"),
        (".", "a folder: "),
        ("pipe", "not a regular file"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_a_store_in_the_place_of_another_file(
    tmp_path: Path, refused: Refused, check: Check, path: str, reason: str, kind: str
) -> None:
    (tmp_path / "list.txt").touch()
    (tmp_path / "linked").symlink_to("list.txt")
    os.mkfifo(tmp_path / "pipe")
    text = (
        'list = ["list.txt"]\nstate = "state"\n[[feed]]\nname = "a"\npath = "of-feed"\n[[feed]]\nname = "b"\n'
        f'path = "feed{".1" if kind == "jsonl" else "-wal"}"\n'
        f'{DAYS}[[records.store]]\nkind = "{kind}"\npath = "{path}"\n'
        f'[[records.store]]\nkind = "sqlite"\npath = "other"\n'
    )
    if not reason:
        assert "records.store" not in check(text)[2]
        return
    said = refused(text)
    assert any(reason in line and line.startswith("urlward.toml:14: records.store.0.path: ") for line in said)


def test_no_name_of_the_state_folder_is_missing() -> None:
    files = (
        allows.KEPT.file, audit.FILE, audit.HEAD, asking.SOCKET, holds.KEPT.file, store.NODE_FILE,
        objections.FILE, outbox.FOLDER, process.LOCK, recorder.LEVEL, retention.CLOCK, schema.FILE,
        handler._FILE, recorder.RUN, recorder.SPOOL, AdminTable().token_file,
    )  # fmt: skip
    assert set(files) <= NAMES


@pytest.mark.parametrize("kept", [False, True])
def test_assignments_that_were_kept_without_an_end(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """By an urlward that did not ask for one; an empty database, as who only asks makes it, is none."""
    store = AssignmentStore(made_folder(tmp_path / "kept") / "assignments.db")
    if kept:
        taken(store, sighting("192.0.2.7", 0, None, "somebody"))
    store.close()
    said = refused(f'state = "kept"\nlist = ["none"]\n{DAYS}')
    needed = "3: records.days.assignments: needed, since who had an address when is a record of persons: "
    assert any(needed in line for line in said) == kept


def test_an_artifact_without_its_key(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "a.ward").write_bytes(artifact(["a.example"]))
    (said,) = refused('list = ["a.ward"]')
    assert said.startswith("urlward.toml:1: list.0: a.ward: an artifact needs its key")


def test_an_authority_that_is_none(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mitmproxy-ca.pem").write_text("nothing")
    (said,) = refused("")
    assert said.startswith("--confdir: mitmproxy-ca.pem: not a certificate with its key")


def test_a_gateway_without_rules_yet(refused: Refused) -> None:
    text = (
        'list = ["none"]\nlisten = "127.0.0.1:8080"\n[gateway]\nsteer = true\n'
        "interfaces = [\n'eth1\"; drop',\n'lo',\n]\n"
        '[gateway.dns]\nresolvers = ["x"]\nport = 8080\n'
    )
    said = refused(text)
    beginnings = (
        "1: list.0: none: No such file",
        "2: listen: redirected connections do not arrive at 127.0.0.1",
        "5: gateway.interfaces: 'eth1\"; drop' is not the name",
        "5: gateway.interfaces: 'lo' is not the name",
        "10: gateway.dns.resolvers: ",
        "11: gateway.dns.port: 127.0.0.1:8080 is where listen (127.0.0.1:8080) listens",
    )
    for line, beginning in zip(said, beginnings, strict=True):
        assert line.startswith(f"urlward.toml:{beginning}")
    resolver = '[gateway.dns]\nresolvers = ["203.0.113.53"]\n'
    (line,) = refused(f"[gateway]\nsteer = true\n{resolver}")
    assert line.startswith("urlward.toml:1: gateway.interfaces: say where clients come in")
    (line,) = refused(
        f'[gateway]\ninterfaces = ["lan0"]\nsteer = true\n{resolver}', "--listen", "192.0.2.1:1"
    )
    assert line.startswith("--listen: redirected connections do not arrive at 192.0.2.1")


def test_a_transparent_filter_is_reached_by_its_rules(refused: Refused) -> None:
    (line,) = refused('mode = ["transparent"]\n[gateway]\ninterfaces = ["lan0"]')
    assert line.startswith("urlward.toml: listen: redirected connections do not arrive at 127.0.0.1")
    # As the gateway's page has it: without `steer`, and without a mode.
    (line,) = refused('listen = "127.0.0.1:8080"\n[gateway]\ninterfaces = ["lan0"]')
    assert line.startswith("urlward.toml:1: listen: redirected connections do not arrive at 127.0.0.1")
    (line,) = refused('[gateway]\ninterfaces = ["lan 0"]')
    assert line.startswith("urlward.toml:2: gateway.interfaces: 'lan 0' is not the name of an interface")


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("mode=socks5", "mode"),
        ("listen_host=192.0.2.1", "listen"),
        ("listen_port=5", "listen"),
        ("confdir=x", "confdir"),
        ("http2=true", "http2"),
        ("urlward_list=x", "list"),
        ("urlward_on_error=pass", "on_error"),
        ("urlward_monitor", "monitor"),
        ("workers=3", "workers"),
    ],
)
def test_options_that_flags_set(refused: Refused, option: str, key: str) -> None:
    flag = key.replace("_", "-")
    name, _, value = option.partition("=")
    assert refused("", "--set", option) == [f"--set: {name}: urlward sets this option: use --{flag}"]
    assert refused(f'[mitmproxy]\n{name} = "{value}"') == [
        f"urlward.toml:2: mitmproxy.{name}: urlward sets this option: use the key {key}"
    ]


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--confdir", "no home folder to keep the authority in: name another"),
        ("--trust", "No such file or directory"),
    ],
)
def test_a_home_of_nobody(refused: Refused, flag: str, why: str) -> None:
    """Nor is a folder of that name made."""
    name = "~nobody-of-that-name/file"
    (said,) = refused("", flag, name)
    assert said == f"{flag}: {name}: {why}"


def test_flags_are_called_flags(refused: Refused) -> None:
    text = f'mode = ["regular"]\nlisten = "127.0.0.1:1"\n{DAYS}[admin]\nlisten = "127.0.0.1:8088"\n'
    assert refused(text, "--list", "none", "--mode", "nonsense", "--key", "none") == [
        "--mode: 'nonsense': unknown mode",
        "--key: none: No such file or directory",
        "--list: none: No such file or directory",
    ]
    (said,) = refused(text, "--listen", "127.0.0.1:8088")
    assert said.startswith(
        "urlward.toml:7: admin.listen: 127.0.0.1:8088 is where --listen (127.0.0.1:8088) listens"
    )
    (said,) = refused(text, "--admin", "127.0.0.1:1")
    assert said.startswith("--admin: 127.0.0.1:1 is where listen (127.0.0.1:1) listens")


def test_all_problems_are_told_in_the_files_order(refused: Refused) -> None:
    store = '[[records.store]]\nkind = "postgresql"\nurl_file = "none"\n'
    said = refused(f'list = ["none"]\nmode = ["foo"]\n{DAYS}{store}')
    assert [line.split(":")[1] for line in said] == ["1", "2", "8"]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """What `run --check` gives: exit code, output and errors."""
    monkeypatch.setattr(certs, "create_ca", _create_ca)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(text: str, *flags: str) -> tuple[int, str, str]:
        (tmp_path / "list.txt").write_text("listed.example id=L-1 category=games\n*.wide.example/?\n")
        (tmp_path / "urlward.toml").write_text(text)
        with pytest.raises(SystemExit) as raised:
            cli.main(["run", "--config", "urlward.toml", "--check", *flags])
        out, err = capsys.readouterr()
        assert isinstance(raised.value.code, int)
        return raised.value.code, out, err.replace(f"{tmp_path}/", "")

    return run


class TestCheckAlone:
    """What only `--check` looks for beforehand, and the start finds as it comes to it."""

    def test_nothing_is_written(self, check: Check, tmp_path: Path) -> None:
        text = (
            f'list = ["list.txt"]\nmax_errors = "50%"\nconfdir = "ca"\nstate = "kept"\n{DAYS}'
            '[admin]\n[[feed]]\nname = "a"\npath = "not-there-yet"\n'
        )
        code, out, err = check(text)
        assert (code, out) == (0, "configuration ok\n")
        assert err.endswith(
            ":11: feed.0.path: not-there-yet: No such file or directory;"
            " until it can be read nothing new is taken from it\n"
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "urlward.toml"]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('[gateway]\nclients = ["192.0.2.0/24"]\nnever = []\n', "2: gateway.clients"),
            ('[gateway]\nsteered = "intercept"', "2: gateway.steered"),
            ("[gateway.dns]\nmax_ttl = 60", "1: gateway.dns"),
            ("[gateway]\nintercept_port = 8091", "2: gateway.intercept_port"),
            ('mode = ["transparent"]\n[proxy]\nports = [443]', "3: proxy.ports"),
            ('mode = ["transparent"]\n[proxy.pac]\nproxies = ["p.example:1"]', "2: proxy.pac"),
            ('mode = ["transparent"]\n[proxy]\nallow_local = true', "3: proxy.allow_local"),
            ('mode = ["wireguard"]\n[proxy]\nallow_local = true', None),
            ('mode = ["transparent", "regular@1"]\n[proxy]\nports = [443]', None),
            ("[probing]\nrate = 2", "2: probing.rate"),
            ('[objections]\nurl = "http://192.0.2.1/"\nper_hour = 9', "3: objections.per_hour"),
            ('[files]\npictures = "alert"\naction = "alert"\nlearn_days = 1', "4: files.learn_days"),
            ("[files]\nvideo = false", "2: files.video"),
            ("[files]\nclassifier_threshold = 1", "2: files.classifier_threshold"),
            ('protected = ["list.txt"]', None),  # `own add` and `[files]` heed it
            ("[pages.home]", "1: pages.home"),
            (f'{FEED}stale_after = "1h"', "4: feed.0.stale_after"),
            (f'trust = ["{SIGNER}"]\n{FEED}', "1: trust"),
        ],
    )
    def test_a_key_that_changes_nothing(self, check: Check, text: str, told: str | None) -> None:
        code, out, err = check(text)
        assert (code, out) == (0, "configuration ok\n")
        begins = [line[: len(f"urlward.toml:{told}: ")] for line in err.splitlines()]
        assert begins == [f"urlward.toml:{told}: "] * bool(told)

    def test_addresses_of_another_machine(self, check: Check) -> None:
        code, out, err = check(f'listen = "192.0.2.77:8080"\n{DAYS}[admin]\nlisten = "127.0.0.1:8088"\n')
        assert (code, out) == (0, "configuration ok\n")
        assert err == "urlward.toml:1: listen: 192.0.2.77:8080: this machine has no such address now\n"

    def test_a_digit_too_many(self, check: Check) -> None:
        code, out, err = check(
            "[records]\n[records.days]\nblocks = 3653\noperations = 9999\nassignments = 30000"
        )
        assert (code, out) == (0, "configuration ok\n")
        assert err.endswith(
            "urlward.toml:5: records.days.assignments: 30000 days are more than 81 years: records of persons"
            " are kept for that long\n"
        )
        assert "days.blocks" not in err

    def test_the_example_works_wherever_it_is_copied_to(self, check: Check) -> None:
        assert check(EXAMPLE.read_text())[:2] == (0, "configuration ok\n")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[mitmproxy]\n\nno_such = 1", "urlward.toml:3: mitmproxy.no_such: "),
            ('[mitmproxy]\nssl_insecure = "x"', "urlward.toml:2: mitmproxy.ssl_insecure: "),
            ('[mitmproxy]\nignore_hosts = "["', "urlward.toml:2: mitmproxy.ignore_hosts: "),
            ('list = ["list.txt"]', "list.txt: 1 of 2 lines could not be read"),
            (
                'list = ["list.txt"]\nmax_errors = "9"\n[[rule]]\nlists = ["lst"]\naction = "block"',
                "urlward.toml:4: rule.0.lists.0: there is no list lst",
            ),
            (
                'list = ["list.txt"]\nmax_errors = "9"\n[objections]\nurl = "http://www.listed.example/x"',
                "urlward.toml:4: objections.url: list list blocks it (entry L-1)",
            ),
        ],
    )
    def test_what_trying_tells(self, check: Check, text: str, said: str) -> None:
        code, out, err = check(text)
        assert (code, out) == (2, "")
        assert err.startswith(f"urlward: {said}")
        assert err.count("\n") == 1

    def test_a_category_that_no_list_has(self, check: Check, caplog: pytest.LogCaptureFixture) -> None:
        text = (
            'list = ["list.txt"]\nmax_errors = "9"\n[[rule]]\naction = "monitor"\n'
            'categories = [\n"games",\n"gmaes"]\n'
        )
        code, out, _ = check(text)
        assert (code, out) == (0, "configuration ok\n")
        assert [line for line in caplog.messages if "rule.0" in line] == [
            "urlward.toml:7: rule.0.categories.1: no entry of its lists has category gmaes"
        ]
        caplog.clear()
        feed = '[[feed]]\nname = "later"\npath = "none"\n'
        assert check(text + feed)[0] == 0
        assert "rule.0" not in caplog.text, "a feed may bring it"
        assert check(f'state = "state"\n{text}')[0] == 0
        assert "rule.0.categories.1: " in caplog.text, "nobody waits for own entries"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                '[[group.rule]]\ncategories = ["gmaes"]\naction = "block"',
                ["8: group.0.rule.0.categories.0: no entry"],
            ),
            (
                '[[group.rule]]\naction = "allow"',
                ["7: group.0.rule.0: it names neither lists nor categories"],
            ),
            (
                '[[group.rule]]\naction = "block"\nschedule = "lessons"\n[schedule.lessons]\nzone = "UTC"',
                ["7: group.0.rule.0: it names neither lists nor categories"],
            ),
            (
                '[[group.rule]]\nlists = ["list"]\naction = "block"\n[[group.rule]]\naction = "allow"\n'
                '[schedule.lessons]\nzone = "UTC"',
                ["12: schedule.lessons: no rule names it"],
            ),
            ('[[rule]]\nlists = ["list"]\naction = "allow"', ["4: group.0: it has no rule"]),
            ('[[rule]]\naction = "monitor"\n[[group.rule]]\naction = "monitor"', []),
        ],
    )
    def test_what_may_be_meant_otherwise(
        self, check: Check, caplog: pytest.LogCaptureFixture, text: str, said: list[str]
    ) -> None:
        lists = 'list = ["list.txt"]\nmax_errors = "9"\n\n'
        group = '[[group]]\nname = "a"\nnetworks = ["192.0.2.0/24"]\n'
        assert check(f"{lists}{group}{text}")[:2] == (0, "configuration ok\n")
        told = [line.removeprefix("urlward.toml:") for line in caplog.messages if "urlward.toml" in line]
        assert len(told) == len(said)
        assert all(line.startswith(start) for line, start in zip(told, said, strict=True)), told

    def test_the_lists_under_a_key(self, check: Check, tmp_path: Path) -> None:
        key_file(tmp_path / "key")
        (tmp_path / "a.ward").write_bytes(artifact(["a.example"]))
        assert check('list = ["a.ward"]\nkey = "key"')[0] == 0
        (tmp_path / "a.ward").write_bytes(artifact(["a.example"])[:-1])
        code, _, err = check('list = ["a.ward"]\nkey = "key"')
        assert code == 2
        assert err.startswith("urlward: a.ward: ")


def problems(listen: tuple[str, int], *modes: str, **values: object) -> list[Problem]:
    """Problems of listeners alone."""
    config = Config.model_validate(
        {"records": {"days": {"blocks": 1, "operations": 1}}, **values}, strict=False
    )
    settings = Settings((), modes or ("regular",), listen, {"urlward_status": 451}, "", ())
    return list(Preflight(config, settings, ())._listeners())


@each_row(
    ("more", "options", "served"),
    [
        ({}, {}, []),
        ({"admin": {"listen": "[::1]:8088"}}, {}, [("::1", 8088)]),
        ({"admin": {"listen": "127.0.0.1:8088"}}, {"urlward_admin": "127.0.0.1:9"}, [("127.0.0.1", 9)]),
        ({"admin": {"listen": "127.0.0.1:0"}}, {}, []),
        (
            {
                "admin": {"listen": "127.0.0.1:8088"},
                "objections": {"listen": "127.0.0.1:8089", "url": "https://o.example/"},
            },
            {},
            [("127.0.0.1", 8089), ("127.0.0.1", 8088)],
        ),
    ],
)
def test_where_the_service_process_listens(
    more: dict[str, object], options: dict[str, str], served: list[tuple[str, int]]
) -> None:
    """The supervisor holds these sockets for it."""
    values = {"records": {"days": {"blocks": 1, "operations": 1}}, **more}
    config = Config.model_validate(values, strict=False)
    settings = Settings((), ("regular",), ("", 0), options, "", (), config=config)
    assert settings.served == [Address(*each, "tcp") for each in served]
    assert Settings((), ("regular",), ("", 0), options, "", ()).served == [], "without records there is none"
    assert Plan.read(Plan(1, [], served=settings.served).written()).served == settings.served


def test_what_looks_at_pictures_is_told_which_variables_it_is_to_be_without() -> None:
    store = {"kind": "postgresql", "url_env": "DATABASE"}
    records = {"days": {"blocks": 1, "operations": 1}, "store": [store]}
    values = {"records": records, "files": {"pictures": "alert"}}
    config = Config.model_validate(values, strict=False)
    inspector = Settings((), ("regular",), ("", 0), {}, "", (), config=config).inspector
    assert inspector is not None
    assert inspector.request["without"] == ["DATABASE"]


@each_row(
    ("filter_at", "admin_at", "meet"),
    [
        ("", "127.0.0.1", True),
        ("", "[::1]", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "[::1]", False),
        ("::", "[::1]", True),
        ("::", "127.0.0.1", False),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("gateway.example", "Gateway.example", True),
        ("gateway.example", "192.0.2.1", False),
    ],
)
def test_addresses_that_meet(
    filter_at: str, admin_at: str, meet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_unknown", lambda host: "")
    assert bool(problems((filter_at, 8080), admin={"listen": f"{admin_at}:8080"})) is meet
    assert not problems((filter_at, 8081), admin={"listen": f"{admin_at}:8080"})
    assert not problems((filter_at, 0), admin={"listen": f"{admin_at}:0"})


def test_udp_is_not_in_the_way_of_tcp() -> None:
    assert not problems(("", 8080), "regular", "wireguard@8080")
    assert problems(("", 8080), "regular", "dns@8080")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'{FEED}ca = "list.txt"', "4: feed.0.ca: 'list.txt': no CA certificates in PEM form"),
        (
            f'{FEED}client_cert = "list.txt"',
            "4: feed.0.client_cert: 'list.txt': no certificate and key",
        ),
        (
            f'{FLEET}password_file = "none"\nuser = "x"',
            "6: fleet.password_file: none: No such file or directory",
        ),
        (
            FLEET.replace("url", "sentinels").replace(
                '"valkeys://valkey.example"', '["valkeys://valkey.example"]'
            )
            + 'sentinel_password_file = "none"',
            "6: fleet.sentinel_password_file: none: No such file or directory",
        ),
        (f'{FLEET}ca = "two"', "6: fleet.ca: 'two': no CA certificates in PEM form"),
        (f'{FLEET}certificate = "two"', "6: fleet.certificate: 'two': no certificate and key"),
        (FLEET.replace("fleet.key", "two"), "5: fleet.seal: two: a key file holds 64 hexadecimal digits"),
        (f'{FEED}token_file = "two"', "4: feed.0.token_file: two is empty, or not text of one line"),
        (
            f'[records]\n[[records.store]]\nkind = "postgresql"\nurl_file = "two"\n{DAYS}',
            "4: records.store.0.url_file: two: not a postgresql:// URL",
        ),
        (
            '[records]\n[[records.store]]\nkind = "syslog"\naddress = "127.0.0.1:1"\ntls = true\nca = "two"\n'
            + DAYS,
            "6: records.store.0.ca: 'two': no CA certificates in PEM form",
        ),
        (
            f'[records]\n[[records.store]]\nkind = "sqlite"\n{DAYS}[admin]\ntoken_file = "{{folder}}/two"',
            "8: admin.token_file: two: needs at least ",
        ),
    ],
)
def test_files_that_do_not_hold_what_they_are_named_for(
    tmp_path: Path, refused: Refused, text: str, line: str
) -> None:
    (tmp_path / "two").write_text("one\ntwo\n")
    (tmp_path / "two").chmod(0o600)
    key_file(tmp_path / "fleet.key")
    (found,) = refused(text.replace("{folder}", str(tmp_path)))
    assert found.startswith(f"urlward.toml:{line}")


def test_a_configuration_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "urlward.toml"
    path.write_bytes('state = "state"\n'.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"urlward\.toml: UTF-16: save it as UTF-8"):
        read_config(path)


def test_pictures_need_the_extra(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"av"}
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name in missing else object())
    text = 'list = ["list.txt"]\n[files]\npictures = "alert"\n'
    assert refused(text) == [
        "urlward.toml:3: files.pictures: the extra `files` is missing: urlward help install"
    ]
    text = 'list = ["list.txt"]\n[files]\nclassifier = "institute.model:score"\n'
    assert refused(text) == [
        "urlward.toml:3: files.classifier: the extra `files` is missing: urlward help install"
    ]
    missing.clear()
    missing.add("institute")
    assert refused(text) == ["urlward.toml:3: files.classifier: there is no such package"]
