from pathlib import Path

import pytest

from config.support import error
from urlward.config import FeedTable, read_config

FULL = """
[[feed]]
name = "phishing"
url = "https://lists.example/phishing.csv"
format = "csv"
columns = { url = "URL", id = "Reference" }
delimiter = ";"
category = "phishing"
take = ["1", "2"]
interval = "30m"
jitter = 0.2
poll = "2s"
timeout = "2m"
connect_timeout = "5s"
max_size = "64MB"
user = "isp"
password_file = "password"
client_cert = "client.pem"
client_key = "~/client.key"
ca = "/etc/ssl/lists.pem"
proxy = "http://proxy.example:3128"
private_redirects = true
max_errors = "5"
max_shrink = 0.5
max_grow = 3
min_entries = 10
stale_after = "1d"
trust = ["body.pub", "0101010101010101010101010101010101010101010101010101010101010101"]
key = "lists.key"
grace = "2d"
delta = false
use = "monitor"
protect = false
paused = true

[[feed]]
name = "mine"
path = "own.txt"
"""

TIME = "write a time such as 90s, 15m, 6h, 2d or 1h30m"

ONE = '[[feed]]\nname = "one"\nurl = "https://lists.example/"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ONE}interval = 3600", "feed.0.interval: write a time such as 90s"),
        (f"{ONE}timeout = 5.0", "feed.0.timeout: write a time such as 90s"),
        (f"{ONE}grace = 0", "feed.0.grace: write a time such as 90s"),
        (f"{ONE}max_size = 512", "feed.0.max_size: write a size such as 512MB"),
        (f'{ONE}max_size = "512"', "feed.0.max_size: write a size such as 512MB"),
        ("[records]\nspool = 1073741824", "records.spool: write a size such as 512MB"),
        ("[probing]\nwindow = 600", "probing.window: write a time such as 90s"),
    ],
)
def test_a_number_without_its_unit(path: Path, text: str, said: str) -> None:
    assert said in error(path, text)


def test_every_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    path.write_text(FULL)
    folder = path.parent
    phishing, own = read_config(path).feed
    assert phishing == FeedTable(
        name="phishing",
        url="https://lists.example/phishing.csv",
        format="csv",
        columns={"url": "URL", "id": "Reference"},
        delimiter=";",
        category="phishing",
        take=("1", "2"),
        interval=1800.0,
        poll=2.0,
        jitter=0.2,
        timeout=120.0,
        connect_timeout=5.0,
        max_size=64 << 20,
        user="isp",
        password_file=str(folder / "password"),
        client_cert=str(folder / "client.pem"),
        client_key="/home/somebody/client.key",
        ca="/etc/ssl/lists.pem",
        proxy="http://proxy.example:3128",
        private_redirects=True,
        max_errors="5",
        max_shrink=0.5,
        max_grow=3.0,
        min_entries=10,
        stale_after=86_400.0,
        trust=(str(folder / "body.pub"), "01" * 32),
        key=str(folder / "lists.key"),
        grace=2 * 86_400.0,
        delta=False,
        use="monitor",
        protect=False,
        paused=True,
    )
    assert own == FeedTable(name="mine", path=str(folder / "own.txt"))
    elsewhere = {"path", "password_env", "token_file", "token_env", "exchange"}
    assert phishing.model_fields_set | elsewhere == set(FeedTable.model_fields)


def test_when_a_feed_is_stale() -> None:
    assert FeedTable(name="a", path="b").stale_limit == 24 * 3600
    assert FeedTable(name="a", path="b", interval=60.0).stale_limit == 3600
    assert FeedTable(name="a", path="b", interval=60.0, stale_after=90.0).stale_limit == 90


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + ONE, "feed: feed.0 and feed.1 have the same name, one"),
        (ONE + 'path = "a"', "feed.0: url and path are both given: one of them only"),
        ('[[feed]]\nname = "one"', "feed.0: url or path is needed"),
        (
            ONE + 'user = "a"\npassword_file = "b"\npassword_env = "C"',
            "feed.0: password_file and password_env are both given: one of them only",
        ),
        (
            ONE + 'user = "a"\ntoken_env = "C"\npassword_env = "D"',
            "feed.0: token_env and user are both given: one of them only",
        ),
        (ONE + 'user = "a"', "feed.0: user is given without password_file or password_env"),
        (ONE + 'password_env = "A"', "feed.0: password_env is given without user"),
        (ONE + 'client_key = "A"', "feed.0: client_key is given without client_cert"),
        (
            '[[feed]]\nname = "one"\npath = "a"\nca = "b"',
            "feed.0: ca and path are both given: a path is not fetched",
        ),
        ('[[feed]]\nname = "one"\nurl = "ftp://a.example"', "feed.0: url is not an http:// or https:// URL"),
        ('[[feed]]\nname = "one"\nurl = "https://"', "feed.0: url is not an http:// or https:// URL"),
        (
            '[[feed]]\nname = "one"\nurl = "https://a:b@lists.example/"',
            "feed.0: url holds credentials: use user and password_file, so that they stay unsaid",
        ),
        (
            '[[feed]]\nname = "one"\nurl = "https://a.example/#a"',
            "feed.0: url has a fragment, which is not sent",
        ),
        (ONE + 'proxy = "proxy.example"', "feed.0: proxy is not an http:// or https:// URL"),
        (ONE + 'interval = "0s"', "feed.0.interval: input should be greater than or equal to 1"),
        (ONE + 'interval = "often"', f"feed.0.interval: {TIME}"),
        (ONE + "interval = nan", f"feed.0.interval: {TIME}, in quotes and with its unit"),
        (ONE + "interval = []", f"feed.0.interval: {TIME}, in quotes and with its unit"),
        (ONE + "max_shrink = true", "feed.0.max_shrink: input should be a number, without quotes"),
        (ONE + 'max_grow = "5"', "feed.0.max_grow: input should be a number, without quotes"),
        (ONE + 'max_size = "much"', "feed.0.max_size: write a size such as 512MB, 64kB or 1GB"),
        (ONE + "max_shrink = 1.5", "feed.0.max_shrink: input should be less than or equal to 1"),
        (ONE + 'use = "report"', "feed.0.use: input should be 'block', 'monitor' or 'allow'"),
        (ONE + "secret = 1", "feed.0.secret: no such key"),
    ],
)
def test_what_does_not_fit(path: Path, text: str, message: str) -> None:
    assert error(path, text) == message


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", ".a", "a b", "ä", "a" * 65, "a\\n"])
def test_names_are_file_names(path: Path, name: str) -> None:
    assert error(path, f'[[feed]]\nname = "{name}"\npath = "a"').startswith("feed.0.name: ")


def test_no_secret_in_a_representation(path: Path) -> None:
    path.write_text(FULL)
    (path.parent / "password").write_text("open sesame")
    assert "sesame" not in repr(read_config(path))
