import re
import ssl
from http.client import BadStatusLine, IncompleteRead, LineTooLong
from pathlib import Path
from typing import get_args

from urllib3.exceptions import InvalidHeader, ProtocolError, ReadTimeoutError, SSLError

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.feeds import source
from urlward.feeds.fetch import failure
from urlward.feeds.source import FetchError, Reason

EOF = ssl.SSLEOFError(8, "secret")


def test_is_somebodys_input() -> None:
    error = FetchError("feed.test: gone", "status", retry_after=1.0, status=418)
    assert isinstance(error, UrlwardError)
    assert (str(error), error.reason, error.retry_after, error.status) == (
        "feed.test: gone",
        "status",
        1.0,
        418,
    )


@each_row(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "secret"), "refused"),
        (ConnectionResetError(104, "secret"), "refused"),
        (OSError("secret"), "refused"),
        (EOF, "refused"),
        (ssl.SSLError(1, "secret"), "tls"),
        (TimeoutError("secret"), "timeout"),
        (BadStatusLine("secret"), "protocol"),
        (LineTooLong("secret"), "protocol"),
        (InvalidHeader("secret"), "protocol"),
        (ValueError("secret"), "protocol"),
    ],
)
def test_before_an_answer(error: Exception, reason: str) -> None:
    told = failure(error, "https://feed.test")
    assert told.reason == reason
    assert str(told).startswith("https://feed.test: ")


@each_row(
    ("error", "reason"),
    [
        (ProtocolError("secret", IncompleteRead(b"secret")), "truncated"),
        (ProtocolError("secret", ConnectionResetError(104, "secret")), "truncated"),
        (ProtocolError("secret", LineTooLong("secret")), "protocol"),
        (SSLError(EOF), "truncated"),
        (SSLError(ssl.SSLError(1, "secret")), "tls"),
        (TimeoutError("secret"), "timeout"),
    ],
)
def test_in_a_body(error: Exception, reason: str) -> None:
    told = failure(error, "https://feed.test", in_body=True)
    assert told.reason == reason
    assert "secret" not in str(told)


def test_the_systems_timeout_within_urllib3s() -> None:
    outer = ReadTimeoutError(None, None, "secret")  # type: ignore[arg-type]
    outer.__cause__ = TimeoutError()
    assert failure(outer, "feed.test", in_body=True).reason == "timeout"


def test_each_reason_is_given_somewhere() -> None:
    folder = Path(source.__file__).parent
    names = ("source", "fetch", "body", "tls")
    text = "".join((folder / f"{name}.py").read_text() for name in names)
    for reason in get_args(Reason):
        assert len(re.findall(f'"{reason}"', text)) > 1, f"{reason} is documented, and no error has it"
