from typing import Any

from feeds.fetch_support import PASSWORD, TOKEN, USER, refusal
from rows import each_row
from urlward.feeds.fetch import credentials, parse
from urlward.feeds.source import FeedOrigin


def field(url: str, **more: Any) -> dict[str, str]:
    return credentials(FeedOrigin(url, **more), parse(url, "the URL"))


def test_none() -> None:
    assert field("http://feed.test/") == {}


def test_basic_is_utf_8() -> None:
    encoded = "Basic c3Vic2NyaWJlcjpwYXNzOnfDtnJkLTczMTMzNw=="
    assert field("https://feed.test/", user=USER, password=PASSWORD) == {"Authorization": encoded}
    assert field("https://feed.test/", user="a") == {"Authorization": "Basic YTo="}


def test_bearer() -> None:
    assert field("https://feed.test/", token=TOKEN) == {"Authorization": f"Bearer {TOKEN}"}


@each_row("host", ["127.0.0.1", "127.8.9.10:8080", "[::1]", "localhost", "LOCALHOST"])
def test_in_clear_within_this_machine(host: str) -> None:
    assert field(f"http://{host}/", token=TOKEN)


@each_row("more", [{"token": TOKEN}, {"user": USER}, {"client_cert": "client.pem"}])
@each_row("host", ["feed.test", "192.0.2.1", "localhost.feed.test", "127.0.0.1.feed.test"])
def test_not_in_clear_elsewhere(host: str, more: dict[str, str]) -> None:
    error = refusal(FeedOrigin(f"http://{host}/", **more))
    assert (error.reason, str(error)) == (
        "secret",
        f"http://{host}: credentials are not sent without TLS: use https",
    )


def test_not_in_clear_to_a_proxy() -> None:
    assert (
        refusal(FeedOrigin("http://127.0.0.1/", token=TOKEN, proxy="http://192.0.2.1:3128")).reason
        == "secret"
    )


@each_row(
    "more",
    [
        {"token": TOKEN, "user": USER},
        {"token": ""},
        {"token": "731337\n"},
        {"token": "731337\r\nX: y"},
        {"token": "31 337"},
        {"token": "731337é"},
        {"user": "some:731337"},
        {"password": PASSWORD},
        {"user": USER, "password": "731337\udcff"},
        {"client_key": "client.key"},
    ],
)
def test_not_usable(more: dict[str, str]) -> None:
    assert refusal(FeedOrigin("https://feed.test/", **more)).reason == "secret"
