import pytest

from rows import each_row
from urlward.gateway.table import Setup

SETUP = Setup(listen=8080, dns=5353, intercept=0, fail="open", source="own", config="0123456789abcdef")


def test_written_and_read() -> None:
    assert Setup.parse(str(SETUP)) == SETUP
    assert len(str(SETUP)) < 128, "what nft takes as a comment"
    listing = [
        {"table": {}},
        {"rule": {"chain": "other"}},
        {"rule": {"chain": "setup", "comment": str(SETUP)}},
    ]
    assert Setup.of(listing) == SETUP


@each_row("text", ["", "listen=8080", "listen=x dns=1 intercept=0 fail=open source=own config=a", "x y z"])
def test_something_else(text: str) -> None:
    with pytest.raises(ValueError):
        Setup.parse(text)
    assert Setup.of([{"rule": {"chain": "setup", "comment": text}}]) is None
    assert Setup.of([{"rule": {"chain": "setup"}}]) is None
