import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.commands.support import GONE, Scrubber, own_words
from urlward.config import is_key


@pytest.fixture(scope="module")
def scrubber() -> Scrubber:
    return Scrubber(["hotline", "my-list", "list.example", "no name"], is_key)


@each_row(
    "text",
    [
        "no successful refresh since 2026-11-24T10:00:00Z, for 24h; the limit is 6h",
        "feed hotline: failed (3 times)",
        "my-list: 1204311 entries, 12.5%, 3 MiB, at 10:00:00.",
        'urlward_blocks_total{list="hotline"} 3.0',
        "5: feed.0.url: not a URL",
        "records: the outbox is nearly full!",
        "",
    ],
)
def test_our_own_words_stay(scrubber: Scrubber, text: str):
    assert scrubber.text(text) == text


@each_row(
    ("text", "left"),
    [
        ("not fetched: https://user:pw@host.example/list?key=a", f"not fetched: {GONE}={GONE}"),
        ("probing client=192.0.2.7: block pages", f"probing client={GONE}: block pages"),
        ("[2001:db8::7]:443", f"[{GONE}]:443"),
        ("listed.example", GONE),
        ("list.example", GONE),
        ("feed.example", GONE),
        ("/home/zxqv/urlward.toml:7", f"/{GONE}"),
        ("zxqv", GONE),
        ("00:11:22:33:44:55", GONE),
        ("7Q4M-2XKD-93FH", GONE),
        ("0123456789abcdef", GONE),
        ("ann@host.example", GONE),
        ("xn--bcher-kva.example", GONE),
        ("пример.example", GONE),
        ("...", "..."),
        ("#:zxqv#.:", f"#:{GONE}.:"),
        pytest.param("z" + "!" * 100_000 + "z", GONE, id="a long one, in time by its length"),
    ],
)
def test_what_could_be_anybodys_goes(scrubber: Scrubber, text: str, left: str):
    found = scrubber.text(text)
    assert found in (left, left.replace(f"{GONE}={GONE}", f"{GONE}=a"))


def test_json_keeps_its_form(scrubber: Scrubber):
    assert scrubber.value({"feed": ["zxqv", 1, 2.5, None, True, {"zxqv.example": b"x"}]}) == {
        "feed": [GONE, 1, 2.5, None, True, {GONE: GONE}]
    }


@given(
    st.text(string.ascii_letters + string.digits + "-", min_size=8).filter(
        # A number has a unit at most, and a hyphen beside a word of ours is none of anybody's.
        lambda name: name[0].isalpha() and {name.strip("-"), name.strip("-").lower()}.isdisjoint(own_words())
    ),
    st.sampled_from(
        ["{0}.example", "http://{0}.test/x", "/x/{0}/", "a{0}@b", "({0})", "x={0}", "{0}:443", '"{0}"']
    ),
)
def test_no_name_of_others_stays(name: str, form: str):
    assert name not in Scrubber().text(f"refused: {form.format(name)}, once")
