"""What happens to feeds and allows becomes events, once."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest

from lists.support import SECRET
from urlward.config import FeedTable
from urlward.engine.digest import Key
from urlward.feeds.store import Facts, FeedStore
from urlward.policy.allows import add_allow, end_allow
from urlward.policy.own import FILE as OWN_FILE
from urlward.policy.own import NAME as OWN
from urlward.records.metrics import RulesFacts
from urlward.records.watches import ALARMS, FILES_AGAIN, SETTLED, Watches
from urlward.state.folder import StateError

NOW = 1_800_000_000.0
FEED = FeedTable(name="body", url="http://127.0.0.1:1/list", stale_after=100.0)


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any], str]] = []

    def __call__(self, kind: str, detail: dict[str, Any], **fields: Any) -> None:
        self.events.append((kind, detail, fields["list"]))

    def take(self) -> list[tuple[str, dict[str, Any], str]]:
        """What was told since; heads of the audit log are the tests' of that (test_audit_records.py)."""
        taken, self.events = [one for one in self.events if one[0] != "audit"], []
        return taken


def test_refreshes_and_alarms_of_feeds(tmp_path: Path) -> None:
    told, now = Told(), [NOW]
    store = FeedStore(tmp_path, "body")
    watches = Watches([FEED], tmp_path, told, clock=lambda: now[0])
    with store.locked():
        old = NOW - 90
        store.write_facts(Facts(last_attempt=old, last_success=old, last_change=old, entries=3))
    watches.look()
    assert told.take() == [], "what was before is not told"
    with store.locked():
        store.write_facts(
            Facts(
                last_attempt=NOW + 5, last_success=NOW + 5, last_change=NOW + 5, entries=5, added=2, serial=9
            )
        )
    watches.look()
    assert told.take() == [("feed", {"entries": 5, "added": 2, "removed": 0}, "body")]
    watches.look()
    assert told.take() == [], "once"
    with store.locked():
        store.write_facts(
            Facts(last_attempt=NOW + 9, last_success=NOW + 5, last_change=NOW + 5, entries=5, reason="html")
        )
    watches.look()
    ((kind, detail, name),) = told.take()
    assert (kind, name, detail["reason"]) == ("feed", "body", "html")
    now[0] = NOW + 500
    watches.look()
    ((kind, detail, name),) = told.take()
    assert (kind, name, detail["alarm"]) == ("alarm", "body", "stale")
    watches.look()
    assert told.take() == []


def test_a_refresh_after_the_clock_was_set_back_is_told(tmp_path: Path) -> None:
    told = Told()
    store = FeedStore(tmp_path, "body")
    watches = Watches([FEED], tmp_path, told, clock=lambda: NOW)
    for at in (NOW + 3_600, NOW):
        with store.locked():
            store.write_facts(Facts(last_attempt=at, last_success=at, last_change=at, entries=3))
        watches.look()
    assert told.take() == [("feed", {"entries": 3, "added": 0, "removed": 0}, "body")]


def test_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, now = Told(), [NOW]
    watches = Watches([], tmp_path, told, clock=lambda: now[0])
    watches.look()
    made = add_allow(tmp_path, Key(SECRET), "a.example", 60, "x", "me", whole_host=False, now=NOW)
    watches.look()
    ((kind, detail, _),) = told.take()
    assert (kind, detail["id"], detail["action"]) == ("allow", made.id, "allowed")
    assert detail["until"] == "2027-01-15T08:01:00Z"
    assert "a.example" not in str(detail)
    # What cannot be read of own entries keeps no allow from being told.
    (tmp_path / OWN_FILE).touch()
    monkeypatch.setattr(watches._own_store, "facts", Mock(side_effect=StateError("not readable")))
    end_allow(tmp_path, made.id, "done", "me", now=NOW)
    watches.look()
    assert told.take() == [("allow", {"id": made.id, "action": "ended"}, "")]


def test_a_refused_list_is_an_alarm_until_it_is_in_force(tmp_path: Path) -> None:
    said: list[tuple[str, str, str, str]] = []
    refused: list[dict[str, str] | None] = [None]

    def alarm(kind: str, text: str, *, whose: str, list: str) -> None:  # noqa: A002 - the event's field
        said.append((kind, text, whose, list))

    watches = Watches([], tmp_path, Told(), refused=lambda: refused[0], alarm=alarm)
    watches.look_at_lists()
    assert said == []
    refused[0] = {"games": "/etc/games.txt: a web page"}
    for _ in range(2):
        watches.look_at_lists()
    text = "list /etc/games.txt: a web page; the last good one stays in force"
    assert said == [("refused-list", text, "games", "games")]
    refused[0] = None
    watches.look_at_lists()
    assert len(said) == 1, "while no worker reports nobody knows"
    refused[0] = {}
    watches.look_at_lists()
    assert said[1:] == [("list-back", "list games: what its file has is in force", "games", "games")]
    # Own entries that cannot be compiled are none that a worker has been given.
    store = FeedStore(tmp_path, OWN)
    (tmp_path / OWN_FILE).touch()
    for error in ("entry o-1 does not open under the local key", ""):
        with store.locked():
            store.write_facts(Facts(last_attempt=NOW, reason="system" if error else "", error=error))
        watches.look()
        watches.look_at_lists()
    assert [(kind, whose) for kind, _, whose, _ in said[2:]] == [("refused-list", OWN), ("list-back", OWN)]
    assert "entry o-1 does not open" in said[2][1]


def test_rules_that_are_taken_away_are_alarms(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []
    rules: list[RulesFacts | None] = [None]
    watches = Watches([], tmp_path, Told(), rules=lambda: rules[0], alarm=lambda *one: said.append(one))
    watches.look_at_rules()
    rules[0] = RulesFacts()
    watches.look_at_rules()
    assert said == []
    rules[0] = RulesFacts(2, "nft (process 7) took rules away")
    for _ in range(2):
        watches.look_at_rules()
    text = "gateway: nft (process 7) took rules away, and it was put right"
    assert said == [("rules-removed", f"{text}; 2 times")]
    rules[0] = RulesFacts(3, "nft (process 8) took rules away", ("missing",))
    for _ in range(2):
        watches.look_at_rules()
    assert said[1:] == [
        ("rules-removed", text.replace("7", "8")),
        ("rules-wrong", "gateway: rules: missing"),
    ]
    rules[0] = RulesFacts(0, "")  # a supervisor that counts anew
    watches.look_at_rules()
    assert said[3:] == [("rules-right", "gateway: the rules are as they should be")]


def test_traffic_that_is_not_filtered_is_an_alarm_until_it_is(tmp_path: Path) -> None:
    said: list[tuple[str, str, str]] = []
    found: dict[tuple[str, str], str] = {}

    def alarm(kind: str, text: str, *, whose: str) -> None:
        said.append((kind, text, whose))

    watches = Watches([], tmp_path, Told(), troubles=lambda: found, alarm=alarm)
    watches.look_at_traffic()
    assert said == []
    found["canary", "gw1-0"] = found["canary", "gw1-1"] = "redirect: not for 9 s"
    for _ in range(2):
        watches.look_at_traffic()
    assert said == [("canary", f"worker {w}: redirect: not for 9 s", w) for w in ("gw1-0", "gw1-1")]
    del found["canary", "gw1-0"]
    watches.look_at_traffic()
    assert [(kind, whose) for kind, _, whose in said[2:]] == [("canary-back", "gw1-0")]


def test_what_was_raised_by_the_process_before_is_not_raised_again_and_ends(tmp_path: Path) -> None:
    """As `systemctl reload` replaces it, with the workers: none of these says that anything was wrong."""
    said: list[tuple[str, str]] = []
    troubles = {("canary", "gw1-0"): "redirect: not for 9 s", ("authority", "gw1-1"): "over in 3 days"}
    refused, rules = {"games": "/etc/games.txt: a web page"}, [RulesFacts(2, "nft", ("missing",))]
    lost = ["it is missing"]

    def process(lasts: list[tuple[str, str, str]]) -> Watches:
        made = Watches(
            [], tmp_path, Told(), refused=lambda: refused, rules=lambda: rules[0], lost=lambda: lost[0],
            troubles=lambda: troubles, alarm=lambda kind, _, whose="", **__: said.append((kind, whose)),
            lasts=lambda *one: lasts.append(one),
        )  # fmt: skip
        made.resume()
        return made

    def look(watches: Watches) -> None:
        watches.look()
        watches.look_at_lists()
        watches.look_at_rules()
        watches.look_at_traffic()
        watches.keep()

    lasting: list[tuple[str, str, str]] = []
    look(process(lasting))
    assert lasting == []
    assert {kind for kind, _ in said} == {
        "included", "refused-list", "rules-removed", "rules-wrong", "canary", "authority",
    }  # fmt: skip
    said.clear()

    # The next has yet to hear of one worker; what it hears is as it was.
    second, away = process(lasting), troubles.pop(("authority", "gw1-1"))
    texts = {(kind, whose): text for kind, text, whose in lasting}
    assert texts["canary", "gw1-0"] == "worker gw1-0: redirect: not for 9 s"
    assert texts.keys() >= {("refused-list", "games"), ("rules-wrong", ""), ("included", "configuration")}
    look(second)
    troubles["authority", "gw1-1"] = away
    for _ in range(SETTLED):
        look(second)
    assert said == []
    troubles["canary", "gw1-0"] = "redirect: refused"
    look(second)
    assert said == [("canary", "gw1-0")], "it is another way now"
    said.clear()

    # The third sees two end, and one begin, which is over with all else before the fourth looks.
    third = process(lasting)
    look(third)
    troubles.clear()
    look(third)
    assert sorted(said) == [("authority-valid", "gw1-1"), ("canary-back", "gw1-0")]
    troubles["canary", "gw1-1"] = "redirect: not for 5 s"
    look(third)
    refused.clear()
    troubles.clear()
    rules[0], lost[0] = RulesFacts(2, "nft"), ""
    said.clear()
    fourth = process(lasting)
    for _ in range(SETTLED - 1):
        look(fourth)
    assert said == []
    for _ in range(2):
        look(fourth)
    ends = [
        ("canary-back", "gw1-1"), ("included-back", "configuration"), ("list-back", "games"),
        ("rules-right", ""),
    ]  # fmt: skip
    assert sorted(said) == ends
    said.clear()
    for _ in range(SETTLED + 1):
        look(fifth := process(lasting))
        look(fifth)
    assert said == []


def test_an_alarm_of_rules_ends_where_there_is_no_gateway_any_more(tmp_path: Path) -> None:
    """As after `[gateway]` was taken out of the configuration."""
    said: list[str] = []
    refused: list[dict[str, str] | None] = [{}]
    rules: list[RulesFacts | None] = [RulesFacts(wrong=("missing",))]

    def process() -> Watches:
        made = Watches(
            [], tmp_path, Told(), refused=lambda: refused[0], rules=lambda: rules[0],
            alarm=lambda kind, *_, **__: said.append(kind),
        )  # fmt: skip
        made.resume()
        return made

    def look(watches: Watches, times: int) -> None:
        for _ in range(times):
            watches.look()
            watches.look_at_rules()
            watches.keep()

    first = process()
    look(first, 1)
    assert said == ["rules-wrong"]
    rules[0] = None
    look(first, SETTLED + 1)
    assert said == ["rules-wrong"], "this one has heard of them: its worker is replaced"
    refused[0] = None
    second = process()
    look(second, SETTLED + 1)
    assert said == ["rules-wrong"], "while no worker reports nobody knows"
    refused[0] = {}
    look(second, 2)
    assert said == ["rules-wrong", "rules-right"]
    look(process(), SETTLED + 1)
    assert said == ["rules-wrong", "rules-right"]


def test_alarms_that_cannot_be_kept_or_read_are_raised(tmp_path: Path) -> None:
    said: list[str] = []

    def look() -> None:
        watches = Watches(
            [], tmp_path, Told(), troubles=lambda: {("canary", "gw1-0"): "redirect"},
            alarm=lambda kind, *_, **__: said.append(kind),
        )  # fmt: skip
        watches.resume()
        watches.look_at_traffic()
        watches.keep()

    for text in ("", "[]", '{"version":1,"alarms":[{"alarm":"canary"}]}'):
        (tmp_path / ALARMS).write_text(text)
        look()
        assert said.pop() == "canary"
        assert not said
    (tmp_path / ALARMS).unlink()
    (tmp_path / ALARMS).mkdir()
    (tmp_path / ALARMS / "in").touch()
    with patch("urlward.records.watches.write_kept", side_effect=StateError("no room")):
        look()
    assert said == ["canary"]
    look()
    assert said == ["canary"] * 2


def test_what_a_publisher_says_is_wrong_is_an_alarm_until_it_is_right(tmp_path: Path) -> None:
    said: list[tuple[str, str, str]] = []
    found: dict[tuple[str, str], str] = {}

    def alarm(kind: str, text: str, *, whose: str) -> None:
        said.append((kind, text, whose))

    watches = Watches([], tmp_path, Told(), publishing=lambda: found, alarm=alarm)
    watches.look_at_publishing()
    assert said == []
    found["publish", "phish"], found["lease-lost", "/srv/lists"] = "list phish: no room", "another leads"
    for _ in range(2):
        watches.look_at_publishing()
    assert said == [
        ("publish", "publish: list phish: no room", "phish"),
        ("lease-lost", "publish: another leads", "/srv/lists"),
    ]
    found.clear()
    watches.look_at_publishing()
    assert said[2:] == [("published", "publish: phish: is published again", "phish")], (
        "the other ends by itself"
    )


def test_feeds_that_another_publisher_looks_after_give_no_alarm(tmp_path: Path) -> None:
    told, now, resting = Told(), [NOW], [True]
    store = FeedStore(tmp_path, "body")
    with store.locked():
        store.write_facts(Facts(last_attempt=NOW, last_success=NOW, last_change=NOW, entries=3))
    watches = Watches([FEED], tmp_path, told, resting=lambda: resting[0], clock=lambda: now[0])
    for seconds in (0, 500, 500):
        now[0] += seconds
        watches.look()
    # What the other has left undone here is no news either.
    resting[0] = False
    watches.look()
    assert told.take() == []
    with store.locked():
        store.write_facts(Facts(last_attempt=now[0], last_success=now[0], last_change=NOW, entries=3))
    watches.look()
    now[0] += 500
    watches.look()
    assert [(kind, detail.get("alarm")) for kind, detail, _ in told.take()] == [("alarm", "stale")]


def test_what_began_with_the_processes_is_told(tmp_path: Path) -> None:
    store = FeedStore(tmp_path, "body")

    def first(facts: Facts, now: float = NOW) -> list[tuple[str, str]]:
        told = Told()
        with store.locked():
            store.write_facts(facts)
        watches = Watches([FEED], tmp_path, told, clock=lambda: now)
        watches.look()
        found = [(kind, str(detail.get("alarm") or detail.get("reason"))) for kind, detail, _ in told.take()]
        watches.look()
        assert told.take() == [], "once"
        return found

    failed = Facts(since=NOW - 5, last_attempt=NOW - 5, reason="refused")
    assert first(failed) == [("feed", "refused"), ("alarm", "missing")]
    assert first(failed, NOW + 90) == [], "it was before"
    assert first(failed, NOW + 110) == [("alarm", "stale")]
    assert first(Facts(since=NOW - 5, last_attempt=NOW - 5, last_change=NOW - 5)) == [
        ("feed", "None"),
        ("alarm", "missing"),
    ]
    again = Facts(since=NOW - 900, last_attempt=NOW - 5, last_change=NOW - 900, last_success=NOW - 5)
    assert first(again) == [], "a refresh that has changed nothing is not told"


def test_an_allow_of_the_start_is_told(tmp_path: Path) -> None:
    for at, count in ((NOW - 5, 1), (NOW - 90, 0)):
        told = Told()
        made = add_allow(tmp_path, Key(SECRET), "a.example", 600, "x", "me", whole_host=False, now=at)
        Watches([], tmp_path, told, clock=lambda: NOW).look()
        assert len(told.take()) == count
        end_allow(tmp_path, made.id, "done", "me", now=NOW)


def test_known_files_are_an_alarm_of_their_list_now_and_then(tmp_path: Path) -> None:
    said: list[tuple[str, str, str, str]] = []
    met: dict[str, float] = {}
    now, left = [NOW], [0.0]

    def alarm(kind: str, text: str, whose: str = "", list: str = "") -> None:  # noqa: A002 - the event's field
        said.append((kind, text, whose, list))

    watches = Watches([], tmp_path, Told(), known=lambda: (met, left[0]), alarm=alarm, clock=lambda: now[0])
    watches.look_at_files()
    assert said == []
    met |= {"hotline": 2.0, "none": 1.0}
    for _ in range(2):
        watches.look_at_files()
    then = "urlward events --kind file"
    assert said == [
        ("known-file", f"known files of list hotline: 2 met; {then}", "hotline", "hotline"),
        ("known-file", f"a classifier has found 1; {then}", "none", ""),
    ]
    met["hotline"] = 3.0
    watches.look_at_files()
    assert len(said) == 2, "they are not said one by one"
    met["hotline"] = 7.0
    now[0] += FILES_AGAIN
    for _ in range(2):
        watches.look_at_files()
    assert said[2:] == [("known-file", f"known files of list hotline: 5 met; {then}", "hotline", "hotline")]
    met["hotline"], now[0] = 8.0, NOW - 86_400
    watches.look_at_files()
    assert len(said) == 4, "a clock that was set back keeps none from being said"
    left[0] = 7.0
    for _ in range(2):
        watches.look_at_files()
    text = "known files: more than are learned of one host, or by one worker, in a day, 7 times; "
    assert said[4:] == [("learned-full", f"{text}see whose (urlward own reveal), and list it", "", "")]
