import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import matcher
from lists.policy_support import config, found
from rows import each_row
from urlward.config.problem import SettingError
from urlward.lists.explain import Checker, explain, parse_at
from urlward.policy.policy import Policy

CLIENT, STRANGER = "192.0.2.5", "203.0.113.5"
LESSON, EVENING = 1_795_597_200.0, 1_795_633_200.0
"""10:00 and 20:00 of a Wednesday in Madrid."""

HOST = "listed.test"


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    text = """
    [[group]]
    name = "classrooms"
    networks = ["192.0.2.0/24"]
    page = "school"
      [[group.rule]]
      lists = ["games"]
      action = "block"
      schedule = "lessons"
      [[group.rule]]
      lists = ["games"]
      action = "allow"
    [schedule.lessons]
    zone = "Europe/Madrid"
    days = ["mon", "tue", "wed", "thu", "fri"]
    from = "08:30"
    to = "17:00"
    [pages.school]
    """
    return Policy(config(tmp_path, text), {"trial": "monitor", "never": "allow"})


def test_what_decided_and_what_would_have(policy: Policy) -> None:
    several = [
        found("phishing", "csam", rank=1, entry="p-1"),
        found("games", rank=5, entry="g-1"),
        found("trial", rank=9, entry="t-1"),
    ]
    explained = explain(policy, [(HOST, several)], CLIENT, LESSON)
    assert explained.as_text() == (
        "block for 192.0.2.5, in group classrooms (group.0.networks.0), at 2026-11-25T09:00:00Z\n"
        "  decided by  block   domain g-1 in games on listed.test: by group.0.rule.0, schedule lessons\n"
        "  not by      block   domain p-1 csam in phishing on listed.test: "
        "no rule fits, the list's use is block\n"
        "  not by      monitor domain t-1 in trial on listed.test: no rule fits, the list's use is monitor\n"
        "  block page  school\n"
        "  until       2026-11-25T16:00:00Z, when the next schedule begins or ends"
    )
    assert explained.verdict is several[1]


def test_what_would_have_at_another_time(policy: Policy) -> None:
    explained = explain(policy, [(HOST, [found("games", entry="g-1")])], CLIENT, EVENING)
    assert explained.as_text() == (
        "pass for 192.0.2.5, in group classrooms (group.0.networks.0), at 2026-11-25T19:00:00Z\n"
        "  nothing listed counts\n"
        "  not by      pass    domain g-1 in games on listed.test: by group.0.rule.1; "
        "group.0.rule.0 fits, out of its schedule\n"
        "  block page  school\n"
        "  until       2026-11-26T07:30:00Z, when the next schedule begins or ends"
    )


def test_a_rule_behind_the_one_that_decides_is_not_told(tmp_path: Path) -> None:
    text = """
    [[rule]]
    lists = ["games"]
    action = "block"
    [[rule]]
    action = "monitor"
    schedule = "never"
    [schedule.never]
    zone = "UTC"
    from = "00:00"
    to = "00:01"
    """
    explained = explain(Policy(config(tmp_path, text)), [(HOST, [found("games")])], CLIENT, LESSON)
    assert explained.decided is not None
    assert (explained.decided.rule, explained.decided.resting) == ("rule.0", ())
    explained = explain(Policy(config(tmp_path, text)), [(HOST, [found("other")])], CLIENT, LESSON)
    assert explained.decided is not None
    assert (explained.decided.rule, explained.decided.resting) == ("", ("rule.1",))


def test_a_rule_that_says_only_then(tmp_path: Path) -> None:
    text = """
    [[rule]]
    lists = ["games"]
    action = "monitor"
    schedule = "never"
    [[rule]]
    categories = ["x"]
    action = "block"
    schedule = "never"
    [schedule.never]
    zone = "UTC"
    from = "00:00"
    to = "00:01"
    """
    explained = explain(Policy(config(tmp_path, text)), [(HOST, [found("games", "x")])], CLIENT, LESSON)
    assert explained.decided is None
    assert (
        "  not by      pass    domain e-1 x in games on listed.test: "
        "rule.1 says block in schedule never only; rule.0 fits, out of its schedule\n"
    ) in explained.as_text()
    (one,) = explained.as_json()["others"]
    assert (one["verdict"], one["rule"], one["schedule"]) == ("pass", "rule.1", "never")
    assert one["resting"] == ["rule.0"]


def test_exceptions(policy: Policy) -> None:
    several = [found("phishing", rank=9), found("phishing", action="allow", entry="z-1"), found("never")]
    explained = explain(policy, [(HOST, several)], STRANGER, LESSON)
    assert explained.verdict.action == "allow"
    assert explained.decided is not None
    assert (explained.decided.verdict.entry, explained.decided.reason) == ("z-1", "an exception")
    assert [one.reason for one in explained.others] == [
        "a list of exceptions",
        "no rule fits, the list's use is block",
    ]
    assert "in no group" in explained.as_text()


def test_a_block_on_one_host_is_not_excused_on_another(policy: Policy) -> None:
    on = {"a.test": [found("phishing", action="allow")], "b.test": [found("phishing", entry="b-1")]}
    for hosts in (on, dict(reversed(on.items()))):
        explained = explain(policy, list(hosts.items()), STRANGER, LESSON)
        assert explained.verdict.action == "block"
        assert explained.decided is not None
        assert explained.decided.host == "b.test"


def test_another_reading_of_a_request_is_decided_on_by_itself(policy: Policy) -> None:
    lists = matcher(games=[f"{HOST} id=g-1"], other=[f"http://{HOST}/a id=o-1"])
    checker, url = Checker(lists, policy, CLIENT, EVENING), f"http://{HOST}/a/"
    explained, _ = checker.explain(url)
    assert checker.check(url)["id"] == "o-1"
    assert explained.decided is not None
    assert explained.decided.verdict.entry == "o-1"
    assert [one.verdict.entry for one in explained.others] == ["g-1"]


@pytest.mark.parametrize(
    ("exception", "target", "action"), [(f"@@{HOST}", "//./a/", "allow"), ("@@*/s/t/*", "/z;/s/t/x", "block")]
)
def test_what_several_readings_have_counts_in_each(
    policy: Policy, exception: str, target: str, action: str
) -> None:
    lists = matcher(phishing=[exception, HOST, f"http://{HOST}/a"])
    checker, url = Checker(lists, policy, STRANGER, LESSON), f"http://{HOST}{target}"
    explained, _ = checker.explain(url)
    assert checker.check(url)["verdict"] == explained.verdict.action == action
    assert len({explained.decided, *explained.others}) == 1 + len(explained.others)


def test_nothing_found(policy: Policy) -> None:
    explained = explain(policy, [], "", LESSON)
    assert explained.as_text() == (
        "pass for a client, in no group, at 2026-11-25T09:00:00Z\n"
        "  nothing listed counts\n"
        "  until       2026-11-25T16:00:00Z, when the next schedule begins or ends"
    )
    assert explained.as_json()["decided"] is None


def test_json(policy: Policy) -> None:
    shown = explain(policy, [(HOST, [found("games", "x", entry="g-1")])], CLIENT, LESSON).as_json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown == {
        "verdict": "block",
        "client": CLIENT,
        "time": "2026-11-25T09:00:00Z",
        "group": "classrooms",
        "member": "group.0.networks.0",
        "page": "school",
        "until": "2026-11-25T16:00:00Z",
        "decided": {
            "host": HOST,
            "verdict": "block",
            "kind": "domain",
            "id": "g-1",
            "category": "x",
            "list": "games",
            "reason": "by group.0.rule.0, schedule lessons",
            "rule": "group.0.rule.0",
            "schedule": "lessons",
            "resting": [],
        },
        "others": [],
        "allow": None,
    }


entries = st.builds(
    found,
    st.sampled_from(["games", "phishing", "trial", "never"]),
    action=st.sampled_from(["block", "block", "allow"]),
    rank=st.integers(0, 3),
    entry=st.uuids().map(str),
)


@given(several=st.lists(entries, max_size=5), now=st.sampled_from([LESSON, EVENING]))
def test_it_explains_what_is_decided(
    tmp_path_factory: pytest.TempPathFactory, several: list, now: float
) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = '[[rule]]\nlists = ["games"]\naction = "allow"\n[[rule]]\ncategories = ["x"]\naction = "monitor"'
    policy = Policy(config(folder, text), {"trial": "monitor", "never": "allow"})
    decided = policy.view(CLIENT, now).decide(several)
    explained = explain(policy, [(HOST, several)], CLIENT, now)
    assert explained.verdict == decided
    if decided.action == "pass":
        assert explained.decided is None
    else:
        assert explained.decided is not None
        assert explained.decided.verdict.entry == decided.entry
        assert explained.decided.action == decided.action
    assert len(explained.others) + (explained.decided is not None) == len(several)


@each_row(
    ("text", "expected"),
    [
        ("1970-01-01", 0.0),
        ("2026-11-25T10:00:00+01:00", LESSON),
        ("2026-11-25T09:00:00Z", LESSON),
        ("2026-11-25t09:00:00z", LESSON),
        ("2026-11-25 09:00:00-00:00", LESSON),
        ("2026-11-25T09:00:00.25Z", LESSON + 0.25),
        ("2026-11-25", datetime.fromisoformat("2026-11-25T00:00:00Z").timestamp()),
        ("2028-02-29", datetime.fromisoformat("2028-02-29T00:00:00Z").timestamp()),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert parse_at(text) == expected


@each_row(
    "text",
    [
        "", "now", "2026-11-25T09:00:00", "2026-11-25T09:00Z", "2026-11-31", "2026-02-29", "20261125",
        "2026-W48-3", "2026-11-25T24:00:01Z", "2026-11-25T09:60:00Z", "2026-11-25T09:00:00+25:00",
        "0000-01-01", "1969-12-31", "9999-12-31T23:59:59Z", "2026-11-25\n", "٢٠٢٦-11-25",
        "2026-11-25T09:00:00Z ",
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(SettingError, match=r"^at: "):
        parse_at(text)
