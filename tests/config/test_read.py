import os
import tempfile
from pathlib import Path

import pytest

from config.support import error
from urlward.config import (
    AdminTable,
    CanaryTable,
    Config,
    ConfigError,
    DnsTable,
    FeedTable,
    FilesTable,
    FleetTable,
    GatewayTable,
    GroupTable,
    HelpLink,
    HookTable,
    ObjectionsTable,
    PageTable,
    ProbingTable,
    ProxyTable,
    PublishCanaryTable,
    PublishTable,
    RecordsTable,
    RuleTable,
    ScheduleTable,
    configured,
    read_config,
)
from urlward.config.records import DaysTable

FULL = """
include = ["more.toml"]
list = ["lists/one.txt", "/var/lib/urlward/two.ward"]
key = "secret.key"
trust = ["body.pub", "abababababababababababababababababababababababababababababababab"]
max_errors = "25"
mode = ["transparent", "regular@8081"]
listen = "[::1]:8080"
workers = 4
worker_timeout = 20
intercept = "all"
tls_block = "alert"
http2 = true
other = "relay"
on_error = "pass"
status = 403
monitor = true
confdir = "ca"
state = "state"
protect = false
protected = ["own.txt"]

[[feed]]
name = "body"
path = "feeds/body.txt"

[[group]]
name = "staff"
networks = ["203.0.113.0/24"]

[[rule]]
action = "monitor"

[schedule.night]
zone = "UTC"

[pages.school]
operator = "Example School"

[page]
operator = "Example School"
authority_url = "https://authority.example/"
objection = "mailto:it@school.example"
template_dir = "templates"
default_language = "fil"

[[page.help]]
label = "Help line"
url = "https://help.example/"

[page.texts.en]
title = "Blocked"

[gateway]
interfaces = ["lan0"]
clients = ["192.0.2.0/24", "2001:db8:1::/64"]
exempt = ["192.0.2.7/32"]
never = ["198.51.100.0/24"]
ports = [80, 443, 8080]
steer = true
steered = "intercept"
fail = "closed"
on_stop = "keep"
keep_source = true
intercept_port = 8091
max_addresses = 1000
max_change = 10
nat64 = ["2001:db8:64::/48"]
mss = 1300

[gateway.dns]
port = 5354
resolvers = ["203.0.113.53", "[2001:db8::53]:5300"]
listed_hosts = "steer"
page_addresses = ["192.0.2.254"]
canary = false
timeout = 1
max_ttl = 60
remember = 50
[gateway.hook]
folder = "hook"
settle = 10
dnstap = true
[gateway.canary]
name = "here.example.invalid"
addresses = ["198.51.100.252"]

[records]
node = "gw1"
days = { blocks = 30, operations = 365 }

[admin]
token_file = "token"

[publish]
to = "www"
key = "lists.key"
sign = "~/body"
valid_for = "2d"
keep = 3
lease = "10s"
observe = "1h"
max_rise = 1.5
[[publish.canary]]
url = "https://node1.example:8443/"
token_file = "node1.token"
ca = "ca.pem"

[objections]
url = "http://gateway.example:8091/"

[proxy]
users = "users.txt"

[probing]
slow = true

[files]
action = "alert"

[fleet]
url = "valkeys://valkey.example:6380"
user = "filter"
password_file = "valkey.password"
node = "gw1"

[mitmproxy]
upstream_cert = false
stream_large_bodies = "1m"
anticache_size = 3
"""


def test_an_empty_file_says_nothing(path: Path) -> None:
    path.touch()
    assert read_config(path) == Config()


def test_every_key(path: Path) -> None:
    path.write_text(FULL)
    folder = path.parent
    assert read_config(path) == Config(
        include=(str(folder / "more.toml"),),
        list=(str(folder / "lists/one.txt"), "/var/lib/urlward/two.ward"),
        key=str(folder / "secret.key"),
        trust=(str(folder / "body.pub"), "ab" * 32),
        max_errors="25",
        mode=("transparent", "regular@8081"),
        listen="[::1]:8080",
        workers=4,
        worker_timeout=20,
        intercept="all",
        tls_block="alert",
        http2=True,
        other="relay",
        on_error="pass",
        status=403,
        monitor=True,
        confdir=str(folder / "ca"),
        state=str(folder / "state"),
        protect=False,
        protected=(str(folder / "own.txt"),),
        feed=(FeedTable(name="body", path=str(folder / "feeds/body.txt")),),
        group=(GroupTable(name="staff", networks=("203.0.113.0/24",)),),
        rule=(RuleTable(action="monitor"),),
        schedule={"night": ScheduleTable(zone="UTC")},
        objections=ObjectionsTable(url="http://gateway.example:8091/"),
        publish=PublishTable(
            to=str(folder / "www"),
            key=str(folder / "lists.key"),
            sign=str(Path("~/body").expanduser()),
            valid_for=172_800.0,
            keep=3,
            lease=10.0,
            observe=3_600.0,
            max_rise=1.5,
            canary=(
                PublishCanaryTable(
                    url="https://node1.example:8443",
                    token_file=str(folder / "node1.token"),
                    ca=str(folder / "ca.pem"),
                ),
            ),
        ),
        proxy=ProxyTable(users=str(folder / "users.txt")),
        probing=ProbingTable(slow=True),
        files=FilesTable(action="alert"),
        pages={"school": PageTable(operator="Example School")},
        page=PageTable(
            operator="Example School",
            authority_url="https://authority.example/",
            objection="mailto:it@school.example",
            help=(HelpLink(label="Help line", url="https://help.example/"),),
            template_dir=str(folder / "templates"),
            default_language="fil",
            texts={"en": {"title": "Blocked"}},
        ),
        gateway=GatewayTable(
            interfaces=("lan0",),
            clients=("192.0.2.0/24", "2001:db8:1::/64"),
            exempt=("192.0.2.7/32",),
            never=("198.51.100.0/24",),
            ports=(80, 443, 8080),
            steer=True,
            steered="intercept",
            fail="closed",
            on_stop="keep",
            keep_source=True,
            intercept_port=8091,
            max_addresses=1000,
            max_change=10,
            nat64=("2001:db8:64::/48",),
            mss=1300,
            dns=DnsTable(
                port=5354,
                resolvers=("203.0.113.53", "[2001:db8::53]:5300"),
                listed_hosts="steer",
                page_addresses=("192.0.2.254",),
                canary=False,
                timeout=1.0,
                max_ttl=60,
                remember=50,
            ),
            hook=HookTable(folder=str(folder / "hook"), settle=10, dnstap=True),
            canary=CanaryTable(name="here.example.invalid", addresses=("198.51.100.252",)),
        ),
        records=RecordsTable(node="gw1", days=DaysTable(blocks=30, operations=365)),
        admin=AdminTable(token_file=str(folder / "token")),
        fleet=FleetTable(
            url=("valkeys://valkey.example:6380",),
            user="filter",
            password_file=str(folder / "valkey.password"),
            node="gw1",
        ),
        mitmproxy={"upstream_cert": False, "stream_large_bodies": "1m", "anticache_size": 3},
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[[group]]\nname = "a"\nnetworks = ["192.0.2.0/24"]\n', "group.0"),
        ('[[rule]]\naction = "allow"\n', "rule.0"),
        ('[[feed]]\nname = "a"\npath = "x"\nuse = "monitor"\n', "feed.0.use"),
        ('[[feed]]\nname = "a"\npath = "x"\nuse = "allow"\n', "feed.0.use"),
    ],
)
def test_dns_cannot_deny_what_is_not_blocked_for_all(path: Path, text: str, place: str) -> None:
    dns = '[gateway.dns]\nlisted_hosts = "nxdomain"\n'
    said = error(path, text + dns)
    assert said.startswith('gateway.dns.listed_hosts: "nxdomain" is for all clients at all times')
    assert f"and {place} is not" in said
    path.write_text(text)
    read_config(path)
    path.write_text(dns)
    read_config(path)


def test_what_fails_closed_needs_rules(path: Path) -> None:
    closed = '[gateway]\nfail = "closed"\n'
    assert error(path, closed).startswith('gateway.fail: "closed" is of rules in the kernel')
    path.write_text(closed + 'interfaces = ["eth1"]\n')
    assert read_config(path).gateway.fail == "closed"


def test_a_hook_needs_steering(path: Path) -> None:
    hook = '[gateway.hook]\nfolder = "hook"\n'
    assert error(path, hook).startswith("gateway.hook.folder: a hook hands answers to a filter that steers")
    path.write_text("[gateway]\nsteer = true\n" + hook)
    assert read_config(path).gateway.hook.folder == str(path.parent / "hook")
    assert error(path, "[gateway.hook]\ndnstap = true\n").startswith("gateway.hook.dnstap: name the folder")
    assert "a path of 90 bytes at most" in error(path, f'[gateway.hook]\nfolder = "/{"x" * 90}"\n')


def test_this_file_has_every_key(path: Path) -> None:
    path.write_text(FULL)
    config = read_config(path)
    assert config.model_fields_set == set(Config.model_fields)
    assert config.publish is not None
    assert config.publish.model_fields_set == set(PublishTable.model_fields)
    assert config.page.model_fields_set == set(PageTable.model_fields)
    assert config.gateway.model_fields_set == set(GatewayTable.model_fields)
    assert config.gateway.dns.model_fields_set == set(DnsTable.model_fields)
    assert config.gateway.hook.model_fields_set == set(HookTable.model_fields)
    assert config.gateway.canary.model_fields_set == set(CanaryTable.model_fields)


EXAMPLE = Path(__file__).parents[2] / "lists" / "urlward.example.toml"


def test_the_example_is_read_with_its_groups_and_feeds_too(path: Path) -> None:
    read_config(EXAMPLE)
    before, _, rest = EXAMPLE.read_text().partition("# Who is filtered how.")
    groups, _, feeds = rest.partition("# Lists that arrive by themselves")
    commented = groups[groups.index("# [[group]]") :] + feeds[feeds.index("\n# [[feed]]") :]
    path.write_text(before + commented.replace("\n# ", "\n").replace("\n#\n", "\n\n").removeprefix("# "))
    config = read_config(path)
    assert [feed.name for feed in config.feed] == ["phishing", "hotline"]
    assert config.group[0].rule
    assert config.rule
    assert config.pages[config.group[0].page or ""].operator
    assert config.schedule["lessons"].days


def test_types_are_kept(path: Path) -> None:
    path.write_text("mitmproxy = { a = true, b = 1, c = '1' }")
    assert [type(value) for value in read_config(path).mitmproxy.values()] == [bool, int, str]


def test_relative_paths_are_from_the_files_folder_not_from_here(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text('list = ["a.txt", "../b.txt"]')
    monkeypatch.chdir(path.parent.parent)
    config = read_config(Path(path.parent.name) / path.name)
    assert config.list == (str(path.parent / "a.txt"), str(path.parent / "../b.txt"))


def test_a_tilde_is_the_home_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    path.write_text('key = "~/urlward.key"')
    assert read_config(path).key == "/home/somebody/urlward.key"


def test_what_is_read_cannot_be_changed(path: Path) -> None:
    path.touch()
    with pytest.raises(ValueError, match="frozen"):
        read_config(path).status = 403


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[[feed]]\nname = 'a b'\nurl = 'http://a.example/'",
            "feed.0.name: input should be 1 to 64 letters, digits and ._-, no . or - first",
        ),
        (
            "[gateway.canary]\nname = 'Canary'",
            "gateway.canary.name: input should be a name with a dot, of small letters, digits and -",
        ),
        ("[fleet]\nprefix = 'a b'", "fleet.prefix: input should be 1 to 64 letters, digits and _.-"),
        (
            "[[records.store]]\nkind = 'postgresql'\nurl_env = 'A-B'",
            "records.store.0.url_env: input should be the name of a variable: "
            "letters, digits and _, no digit first",
        ),
        ("lists = []", "lists: no such key; did you mean list?"),
        ("[Page]", "Page: no such key; did you mean page?"),
        (
            "[[feed]]\nname = 'x'\nurl = 'http://x'\npassword = 'x'",
            "feed.0.password: no such key; did you mean password_file?",
        ),
        ("[page]\nopperator = 'x'", "page.opperator: no such key; did you mean operator?"),
        ("on-error = 'block'", "on-error: no such key; did you mean on_error?"),
        ('"a\\nb" = 1', r"'a\nb': no such key"),
        ("list = 'a.txt'", "list: input should be an array, [ … ]"),
        ("list = { a = 1 }", "list: input should be an array, [ … ]"),
        ("list = ['a.txt', 1]", "list.1: input should be text, in quotes"),
        ("list = ['']", "list.0: input should not be empty"),
        ("key = ''", "key: input should not be empty"),
        ("confdir = ''", "confdir: input should not be empty"),
        ("key = ['a']", "key: input should be text, in quotes"),
        ("max_errors = 25", "max_errors: input should be text, in quotes"),
        ("mode = 'regular'", "mode: input should be an array, [ … ]"),
        ("listen = 8080", "listen: input should be text, in quotes"),
        ("workers = 0", "workers: input should be greater than or equal to 1"),
        ("workers = 257", "workers: input should be less than or equal to 256"),
        ("workers = '4'", "workers: input should be a whole number, without quotes"),
        ("workers = true", "workers: input should be a whole number, without quotes"),
        ("workers = 1.0", "workers: input should be a whole number, without quotes"),
        ("intercept = 'some'", "intercept: input should be 'listed', 'all' or 'none'"),
        ("on_error = 'Block'", "on_error: input should be 'block' or 'pass'"),
        ("status = 404", "status: input should be 451 or 403"),
        ("status = '451'", "status: input should be 451 or 403"),
        ("status = true", "status: input should be 451 or 403"),
        ("page = 1", "page: input should be a table"),
        ("page = []", "page: input should be a table"),
        ("[page]\ntemplate_dir = ''", "page.template_dir: input should not be empty"),
        ("[page]\nhelp = 'x'", "page.help: input should be tables, each under [[page.help]]"),
        (
            "[page.help]\nlabel = 'x'\nurl = 'y'",
            "page.help: input should be tables, each under [[page.help]]",
        ),
        ("[page]\nhelp = ['x']", "page.help.0: input should be a table"),
        ("[[page.help]]\nlabel = 'x'", "page.help.0.url: this key is needed"),
        (
            "[[page.help]]\nlabel = 'x'\nurl = 'y'\n[[page.help]]\nurl = 'y'",
            "page.help.1.label: this key is needed",
        ),
        ("[[page.help]]\nlabel = 'x'\nurl = 'y'\nlang = 'z'", "page.help.0.lang: no such key"),
        ("[[page.help]]\nlabel = 1\nurl = 'y'", "page.help.0.label: input should be text, in quotes"),
        ("[page]\ntexts = 1", "page.texts: input should be a table"),
        ("[page.texts]\nen = 'x'", "page.texts.en: input should be a table"),
        ("[page.texts.en]\ntitle = 1", "page.texts.en.title: input should be text, in quotes"),
        ("mitmproxy = 'x'", "mitmproxy: input should be a table"),
        ("[mitmproxy]\na = 1.5", "mitmproxy.a: input should be text, a whole number, true or false"),
        ("[mitmproxy]\na = ['x']", "mitmproxy.a: input should be text, a whole number, true or false"),
        ("[mitmproxy.a]\nb = 1", "mitmproxy.a: input should be text, a whole number, true or false"),
        ("status = 2020-01-01", "status: input should be 451 or 403"),
    ],
)
def test_what_does_not_fit_is_named(path: Path, text: str, message: str) -> None:
    assert error(path, text) == message


def test_a_value_is_not_told(path: Path) -> None:
    # A key pasted where its file's name should be must not end up in a log.
    assert "0123" not in error(path, "key = ['0123']")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("status", ":1: not TOML: Expected '='"),
        ("status = 451\nstatus = 403\n", ":2: not TOML: Cannot overwrite"),
        ("status = \n", ":1: not TOML: Invalid value"),
        (b"operator = 'x'\n\n# caf\xe9\n", ":3: not TOML: not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", ":1: not TOML: not UTF-8"),
        ("list = " + "[" * 10_000, "not TOML: nested too deeply"),
        ("status = " + "4" * 6_000, ": not TOML: a value cannot be read: Exceeds the limit"),
        ("<html>", "not TOML"),
    ],
    ids=["no value", "twice", "end", "latin-1", "picture", "deep", "digits", "html"],
)
def test_what_is_not_toml(path: Path, text: str | bytes, part: str) -> None:
    assert error(path, text)
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert f"{part}" in str(raised.value)


def test_a_byte_order_mark_says_nothing(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfstatus = 403\r\n")
    assert read_config(path).status == 403
    path.write_bytes(b"\xef\xbb\xbfmonitor = true\r\nstatus = 404\r\n")
    with pytest.raises(ConfigError, match=r"^[^\n]*toml:2: status: input should be 451 or 403$"):
        read_config(path)


def test_every_problem_is_told_at_its_line(path: Path) -> None:
    path.write_text("""\
status = 404
workers = 0
list = [
    "a.txt",  # [page]
    "",
]
on_errror = "pass"

[gateway]
lsten = ":8080"
listen = ":8080"
    [gateway.dns]
    port = 99999

[[feed]]
name = "a"
path = "a"
[[feed]]
name = "b"

[mitmproxy]
anticache = [
    1.5 ]
""")
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert [line.removeprefix(f"{path}:") for line in raised.value.lines] == [
        "1: status: input should be 451 or 403",
        "2: workers: input should be greater than or equal to 1",
        "5: list.1: input should not be empty",
        "7: on_errror: no such key; did you mean on_error?",
        "10: gateway.lsten: no such key",
        "11: gateway.listen: no such key; listen belongs above the first [table] of the file",
        "13: gateway.dns.port: input should be less than or equal to 65535",
        "18: feed.1: url or path is needed",
        "22: mitmproxy.anticache: input should be text, a whole number, true or false",
    ]
    assert str(raised.value) == raised.value.lines[0]


def test_contradictions_are_told_at_their_lines(path: Path) -> None:
    path.write_text("""\
[admin]

[[group]]
name = "a"
networks = ["192.0.2.0/24"]
page = "none"
    [[group.rule]]
    action = "block"
    [[group.rule]]
    action = "block"
    schedule = "none"
""")
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert [line.removeprefix(f"{path}:") for line in raised.value.lines] == [
        "1: admin: [records] is needed, which is what the dashboard shows",
        "6: group.0.page: there is no [pages.none]",
        "9: group.0.rule.1: never reached, since group.0.rule.0 fits all that it does",
        "11: group.0.rule.1.schedule: there is no [schedule.none]",
    ]


def test_no_such_home(path: Path) -> None:
    assert "no such user" in error(path, 'list = ["~no-such-user-here/a.txt"]')


def test_what_cannot_be_read(path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{path}: No such file or directory$"):
        read_config(path)
    with pytest.raises(ConfigError, match=f"^{path.parent}: Is a directory$"):
        read_config(path.parent)
    path.symlink_to(path)
    with pytest.raises(ConfigError, match=r"^[^\n]*: Too many levels of symbolic links$"):
        read_config(path)


def test_permission() -> None:
    # Not under pytest's own folders, which nobody but their user gets into.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "urlward.toml"
        path.touch(0)
        path.parent.chmod(0o755)
        if os.getuid() == 0:
            os.seteuid(65534)  # nothing is forbidden to root
        try:
            with pytest.raises(ConfigError, match="Permission denied"):
                read_config(path)
        finally:
            os.seteuid(os.getuid())


def test_with_the_machines_file_goes_the_services_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forgets sudo is refused there, and decides nothing in a folder that no filter looks at."""
    service, system, other = tmp_path / "service", tmp_path / "system.toml", tmp_path / "other.toml"
    for path in (system, other):
        path.write_text("[records.days]\nblocks = 1\noperations = 1\n")
    monkeypatch.setattr("urlward.config.SYSTEM", system)
    monkeypatch.setattr("urlward.config.SERVICE", service)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert configured(None)[1].state is None, "there is no service"
    service.mkdir()
    assert [configured(path)[1].state for path in (None, system, other)] == [str(service), str(service), None]
    monkeypatch.setenv("STATE_DIRECTORY", "/other")
    assert configured(None)[1].state is None
    monkeypatch.delenv("STATE_DIRECTORY")
    system.write_text('state = "own"\n')
    assert configured(None)[1].state == str(tmp_path / "own")
    system.write_text("workers = 1\n")
    assert configured(None)[1].state is None, "a filter with it keeps none"
