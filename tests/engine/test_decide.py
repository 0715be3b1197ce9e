"""Who asks says what becomes of the entries that match."""

from engine.support import OTHER_SECRET, build, key, matcher
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.engine.verdict import PASS, Verdict, decide

LINES = ("a.test id=1", "http://a.test/p id=2", "@@http://a.test/ok id=3", "*/x/y/* id=4", "192.0.2.7 id=5")


def seen(found: Matcher, host: str, target: str) -> list[list[str]]:
    asked: list[list[str]] = []

    def note(verdicts: list[Verdict]) -> Verdict:
        asked.append(sorted(v.entry for v in verdicts))
        return decide(verdicts)

    found.check(host, target, (), 0.0, note)
    return asked


def test_all_entries_that_match_are_shown() -> None:
    found = matcher(*LINES)
    assert seen(found, "a.test", "/p") == [["1", "2"]]
    assert seen(found, "a.test", "/ok") == [["1", "3"]]
    assert seen(found, "b.test", "/x/y/z") == [["4"]]
    assert seen(found, "a.test", "/x/y/") == [["1", "4"]]


def test_nothing_is_asked_where_nothing_matches() -> None:
    found = matcher(*LINES)
    assert seen(found, "b.test", "/p") == []
    assert found.check_host("b.test", decide=lambda _: Verdict("block")) == PASS
    assert found.check_address("192.0.2.8", decide=lambda _: Verdict("block")) == PASS


def test_its_answer_counts() -> None:
    found = matcher(*LINES)
    told = Verdict("monitor", entry="x")
    for verdict in (
        found.check("a.test", "/p", decide=lambda _: told),
        found.check_url("http://a.test/p", decide=lambda _: told),
        found.check_host("a.test", decide=lambda _: told),
        found.check_address("192.0.2.7", decide=lambda _: told),
        # Another host that passes does not hide it, in any order.
        found.check_request(("a.test", "b.test"), "/p", decide=lambda _: told),
        found.check_request(("b.test", "a.test"), "/p", decide=lambda _: told),
    ):
        assert verdict == told
        assert not verdict.blocked


def test_a_block_of_one_host_goes_before_what_is_only_told_of_another() -> None:
    found = matcher("a.test", "b.test category=x")

    def judge(verdicts: list[Verdict]) -> Verdict:
        return verdicts[0] if verdicts[0].category else Verdict("monitor")

    for hosts in (("a.test", "b.test"), ("b.test", "a.test")):
        assert found.check_request(hosts, "/", decide=judge).blocked


def test_an_exception_under_one_key_excuses_from_a_list_under_another() -> None:
    one, other = key(), Key(OTHER_SECRET)
    found = Matcher(
        [
            load(build(["a.test", "*/x/y/*"], one, "body"), one),
            load(
                build(["@@http://a.test/ok", "http://b.test/q?v=1", "*/v/w/* nocase"], other), other, "ours"
            ),
        ]
    )
    assert found.check("a.test", "/ok").action == "allow"
    assert found.check("a.test", "/p").list == "body"
    assert found.check("b.test", "/q?v=1").list == "ours"
    assert found.check("c.test", "/x/y/").list == "body"
    assert found.check("c.test", "/V/w/").list == "ours"
    assert found.lists_below("b.test") == ("ours",)
    assert found.level("b.test") == "below"
