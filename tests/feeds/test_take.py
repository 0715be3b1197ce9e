"""Feeds of artifacts: deltas, signatures, serials and dates, over a real server."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.support import digest, file_line
from feeds.feed_support import Feed, Server, feed, hosts
from lists.support import OTHER_SECRET, SECRET, artifact
from urlward.engine.artifact import parse, reissue
from urlward.engine.delta import make_delta
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.engine.signing import SigningKey, make_rotation
from urlward.feeds import feed as feeds_feed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEY = Key(SECRET)
SIGNER, NEXT, THIEF = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
DAY = 86_400


def issue(
    serial: int,
    *numbers: int,
    signer: SigningKey | None = None,
    start: int = 0,
    until: int = 0,
    files: Sequence[str] = (),
    name: str = "theirs",
) -> bytes:
    return artifact(
        (*hosts(*numbers).splitlines(), *files), SECRET, name,
        serial=serial, valid_from=start, valid_until=until, signer=signer,
    )  # fmt: skip


def delta(old: bytes, new: bytes) -> bytes:
    return make_delta(parse(old), parse(new), KEY)


FIRST, SECOND, THIRD = issue(1, *range(200)), issue(2, *range(1, 202)), issue(3, *range(210))
DELTA = delta(FIRST, SECOND)
SEALED = DELTA[48:]


@pytest.fixture
def body(tmp_path: Path, site: Server) -> Feed:
    """A feed of artifacts that has been fetched once."""
    site.put("feed", FIRST)
    made = feed(tmp_path, url=site.url())
    assert made.refresh().state == "new"
    site.seen()
    return made


def asked(site: Server) -> list[str]:
    return [" ".join(line.split()[:2]) for line in site.seen()]


def test_the_artifact_is_stored_as_it_came(body: Feed) -> None:
    assert body.store.path.read_bytes() == FIRST
    assert body.blocks("h7.example")
    assert (body.facts.kind, body.facts.serial, body.facts.highest) == ("artifact", 1, 1)


def test_a_delta_comes_first(body: Feed, site: Server) -> None:
    site.put("feed.1.delta", DELTA)
    site.put("feed", SECOND)
    outcome = body.refresh()
    assert outcome.text == "201 entries fetched, serial 2, +2 -1, by delta"
    assert asked(site) == ["200 /feed.1.delta"]
    assert body.store.path.read_bytes() == SECOND


def test_digests_of_files_come_by_delta_and_signed(tmp_path: Path, site: Server) -> None:
    lines = [file_line(name, n, id=f"{name}-{n}") for n in range(100) for name in ("sha256", "pdq")]
    first = issue(1, *range(50), signer=SIGNER, files=lines)
    second = issue(2, *range(50), signer=SIGNER, files=[*lines[2:], file_line("sha256", 200, id="new")])
    one = feed(
        tmp_path,
        url=site.url(),
        key=str(tmp_path / "lists.key"),
        trust=(str(SIGNER.public),),
        max_shrink=1.0,
    )
    site.put("feed", first)
    assert one.refresh().text == "250 entries fetched, serial 1, +250 -0"
    site.put("feed.1.delta", delta(first, second))
    site.put("feed", second)
    assert one.refresh().text == "249 entries fetched, serial 2, +1 -2, by delta"
    found = Matcher([load(one.store.path.read_bytes(), KEY)])
    assert [found.check_file({"sha256": digest("sha256", n)}).entry for n in (0, 1, 200)] == [
        "",
        "sha256-1",
        "new",
    ]
    assert len(found.perceptual()[0].rows) == 99


def test_after_a_delta_the_whole_is_not_fetched_to_learn_that_it_is_the_same(
    body: Feed, site: Server
) -> None:
    site.put("feed.1.delta", DELTA)
    site.put("feed", SECOND)
    body.refresh()
    site.seen()
    assert body.refresh().state == "unchanged"
    assert asked(site) == ["404 /feed.2.delta", "206 /feed"]
    assert body.refresh().state == "unchanged"
    assert asked(site) == ["404 /feed.2.delta", "304 /feed"]
    # Where the body offers no more deltas, the whole one comes.
    site.put("feed", THIRD)
    assert body.refresh().text == "210 entries fetched, serial 3, +9 -0"
    assert body.store.path.read_bytes() == THIRD


def test_the_whole_comes_where_another_is_there_than_the_delta_led_to(body: Feed, site: Server) -> None:
    site.put("feed.1.delta", DELTA)
    body.refresh()
    site.put("feed", THIRD)
    site.seen()
    assert body.refresh().state == "new"
    assert asked(site) == ["404 /feed.2.delta", "206 /feed", "200 /feed"]
    assert body.store.path.read_bytes() == THIRD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>log in</html>",
        DELTA[:-3],
        DELTA[:-3] + b"???",
        DELTA[:48] + Key(OTHER_SECRET).seal(KEY.unseal(SEALED)),
        DELTA[:48] + KEY.seal(KEY.unseal(SEALED)[:-3]),
        DELTA[:48] + KEY.seal(zstd.compress(bytes(1 << 26))),
        DELTA[:16] + (1 << 30).to_bytes(8, "little") + DELTA[24:],
        DELTA[:8] + b"\1" + DELTA[9:],
        delta(SECOND, THIRD),
    ],
    ids=[
        *(
            "empty",
            "html",
            "truncated",
            "damaged",
            "another key's",
            "half a frame",
            "bomb",
            "said to be large",
        ),
        *("of an older release", "of another"),
    ],
)
def test_a_delta_that_will_not_do(content: bytes, body: Feed, site: Server) -> None:
    site.put("feed.1.delta", content)
    assert body.refresh().state == "unchanged"
    assert body.store.path.read_bytes() == FIRST
    site.put("feed", SECOND)
    outcome = body.refresh()
    assert outcome.text.startswith("201 entries fetched, serial 2, +2 -1, delta not used: ")
    assert body.store.path.read_bytes() == SECOND


def test_deltas_can_be_left(body: Feed, site: Server) -> None:
    site.put("feed.1.delta", DELTA)
    site.put("feed", SECOND)
    assert body.refresh(delta=False).state == "new"
    assert asked(site) == ["200 /feed"]


def test_a_delta_is_no_way_around_the_guards(body: Feed, site: Server) -> None:
    small = issue(2, *range(20, 200))
    site.put("feed.1.delta", delta(FIRST, small))
    site.put("feed", small)
    assert body.refresh(max_shrink=0.05).text.startswith("shrunk: 180 entries after 200: ")
    assert asked(site) == ["200 /feed.1.delta"]
    assert body.store.path.read_bytes() == FIRST
    site.put("feed.1.delta", DELTA)
    site.put("feed", SECOND)
    assert body.refresh(max_size=len(SECOND) - 1).text.startswith("too-large: ")
    assert asked(site) == ["200 /feed.1.delta", "200 /feed"]
    assert body.store.path.read_bytes() == FIRST


def test_a_busy_server_is_asked_no_more(body: Feed, site: Server) -> None:
    with site.fault("429"):
        assert body.refresh().text.startswith("rate-limited: ")
    assert asked(site) == ["429 /feed.1.delta"]


def test_a_query_stays_behind(tmp_path: Path, site: Server) -> None:
    site.put("feed", FIRST)
    made = feed(tmp_path, url=f"{site.url()}?key=1")
    made.refresh()
    site.put("feed.1.delta", DELTA)
    site.seen()
    assert made.refresh().state == "new"
    assert asked(site) == ["200 /feed.1.delta?key=1"]


# -- serials and dates


def test_older_and_replayed(body: Feed, site: Server) -> None:
    site.put("feed", SECOND)
    body.refresh()
    site.put("feed", FIRST)
    assert body.refresh().text.startswith("older-serial: serial 1, but 2 has been taken")
    site.put("feed", issue(2, *range(20)))
    assert body.refresh().text.startswith("forked-serial: ")
    assert body.store.path.read_bytes() == SECOND
    site.put("feed", SECOND)
    assert body.refresh().state == "unchanged"


def test_no_roll_back_where_the_facts_or_the_artifact_are_lost(body: Feed, site: Server) -> None:
    site.put("feed", SECOND)
    body.refresh()
    site.put("feed", FIRST)
    facts = body.state / "feeds/phish.json"
    kept = facts.read_bytes()
    facts.unlink()
    assert body.refresh().text.startswith("older-serial: ")
    facts.write_bytes(kept)
    body.store.path.unlink()
    assert body.refresh().text.startswith("older-serial: ")
    assert body.refresh().text.endswith("; there is no list yet")


def test_dates(tmp_path: Path, site: Server) -> None:
    made = feed(tmp_path, url=site.url(), grace=7.0 * DAY)
    now = int(made.now)
    site.put("feed", issue(1, 1, start=now + DAY))
    assert made.refresh().text.startswith("not-yet-valid: ")
    site.put("feed", issue(1, 1, until=now - 8 * DAY))
    assert made.refresh().text.startswith("expired: ")
    site.put("feed", issue(1, 1, until=now - DAY))
    assert made.refresh().state == "new"
    assert "expired" in made.facts.alarms
    site.put("feed", issue(2, 1, until=now + 100 * DAY))
    assert made.refresh().state == "new"
    assert made.facts.alarms == {}


# -- signatures


def trusting(tmp_path: Path, site: Server, **keys: Any) -> Feed:
    return feed(tmp_path, url=site.url(), trust=(str(SIGNER.public),), **keys)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (FIRST, "unsigned"),
        (hosts(*range(20)).encode(), "unsigned"),
        (issue(1, 1, signer=THIEF), "unknown-signer"),
        (
            bytes(reissue(FIRST, serial=9, valid_from=0, valid_until=0, signer=SIGNER.public.raw)),
            "unsigned",
        ),
    ],
    ids=["no signature", "a text", "another's", "signer without signature"],
)
def test_what_nobody_trusted_has_signed(content: bytes, reason: str, tmp_path: Path, site: Server) -> None:
    made = trusting(tmp_path, site)
    site.put("feed", content)
    assert made.refresh().text.startswith(f"{reason}: ")
    site.put("feed", issue(1, *range(20), signer=SIGNER))
    assert made.refresh().state == "new"
    site.put("feed", content)
    assert made.refresh().text.startswith(f"{reason}: ")


@pytest.mark.parametrize(("before", "name", "taken"), [("", "games", False), ("theirs", "games", True)])
def test_another_list_of_the_same_key_is_not_taken(
    before: str, name: str, taken: bool, tmp_path: Path, site: Server
) -> None:
    """A publisher signs all lists with one key, and each goes by its feed's name."""
    made = trusting(tmp_path, site)
    named = before or made.table.name
    site.put("feed", issue(1, *range(20), signer=SIGNER, name=named))
    assert made.refresh().state == "new"
    site.put("feed", issue(2, *range(30, 50), signer=SIGNER, name=name))
    outcome = made.refresh()
    assert outcome.state == ("new" if taken else "failed")
    assert outcome.text.startswith("another-list: ") is not taken
    site.put("feed", issue(3, *range(21), signer=SIGNER, name=named))
    assert made.refresh().state == "new"


def test_whoever_comes_to_trust_somebody_wants_to_see_his_signature(body: Feed, site: Server) -> None:
    assert body.refresh().state == "unchanged"
    assert body.refresh(trust=(str(SIGNER.public),)).text.startswith("unsigned: ")
    assert body.store.path.read_bytes() == FIRST
    site.put("feed", issue(2, *range(200), signer=SIGNER))
    assert body.refresh(trust=(str(SIGNER.public),)).state == "new"
    # And who trusts another than before does.
    assert body.refresh(trust=(str(NEXT.public),)).text.startswith("unknown-signer: ")
    assert body.refresh(trust=(str(NEXT.public), str(SIGNER.public))).state == "unchanged"


def test_a_delta_of_signed_artifacts(tmp_path: Path, site: Server) -> None:
    first, second = issue(1, *range(200), signer=SIGNER), issue(2, *range(201), signer=SIGNER)
    made = trusting(tmp_path, site)
    site.put("feed", first)
    made.refresh()
    site.put("feed.1.delta", delta(first, issue(2, 666, *range(200))))
    site.put("feed", first)
    assert made.refresh().state == "unchanged"
    site.put("feed.1.delta", delta(first, second))
    assert made.refresh().text.endswith("by delta")
    assert made.store.path.read_bytes() == second


def test_an_attempt_keeps_no_rotation_statement(tmp_path: Path, site: Server, compiles_here: None) -> None:
    made = trusting(tmp_path, site)
    site.put("feed", issue(1, *range(20), signer=NEXT))
    site.put("feed.rotation", make_rotation(SIGNER, NEXT.public, start=0, last_serial=1).text())
    tried = feeds_feed.Feed(made.table, made.config, made.state).attempt()
    assert tried.text.startswith("20 entries fetched")
    assert list(made.state.glob("trust/*/*")) == []
    assert made.refresh().state == "new"
    assert list(made.state.glob("trust/*/*")) != []


def test_a_rotation_statement_is_fetched_and_kept(
    tmp_path: Path, site: Server, caplog: pytest.LogCaptureFixture
) -> None:
    made = trusting(tmp_path, site)
    site.put("feed", issue(1, *range(20), signer=SIGNER))
    made.refresh()
    site.put("feed", issue(2, *range(20), signer=NEXT))
    assert made.refresh().text.startswith("unknown-signer: ")
    site.put("feed.rotation", b"<html>")
    assert made.refresh().text.startswith("rotation: ")
    site.put("feed.rotation", make_rotation(THIEF, NEXT.public, start=0, last_serial=1).text())
    assert made.refresh().text.startswith("rotation: ")
    assert list(made.state.glob("trust/*/*")) == []
    site.put("feed.rotation", make_rotation(SIGNER, NEXT.public, start=0, last_serial=1).text())
    assert str(NEXT.public) not in caplog.text
    assert made.refresh().state == "new"
    assert f"another key signs from now on: {NEXT.public}" in caplog.text
    (site.folder / "www/feed.rotation").unlink()
    site.put("feed", issue(3, *range(21), signer=NEXT))
    assert made.refresh().state == "new"
    # The old key is of no use any more, to a thief neither.
    site.put("feed", issue(4, *range(20), signer=SIGNER))
    assert made.refresh().text.startswith("retired-key: ")


def test_keys_of_other_bodies(tmp_path: Path, site: Server) -> None:
    site.put("feed", FIRST)
    made = feed(tmp_path, url=site.url())
    made.config = made.config.model_copy(update={"key": None})
    assert made.refresh().text.startswith("key: ")
    assert made.refresh(key=str(tmp_path / "none")).text.startswith("key: ")
    assert made.refresh(key=str(tmp_path / "lists.key")).state == "new"
