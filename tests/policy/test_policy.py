from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lists.policy_support import config, found
from rows import each_row
from urlward.config import Config, RuleTable, ScheduleTable, Use
from urlward.engine.verdict import PASS, Verdict
from urlward.engine.verdict import decide as plain
from urlward.policy.policy import Policy, Schedule, View

CLIENT, STRANGER = "192.0.2.5", "203.0.113.5"

SCHOOL = """
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
  [[group.rule]]
  categories = ["adverts"]
  action = "monitor"

[[rule]]
lists = ["games"]
action = "allow"

[schedule.lessons]
zone = "Europe/Madrid"
days = ["mon", "tue", "wed", "thu", "fri"]
from = "08:30"
to = "17:00"

[pages.school]
"""


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


LESSON, EVENING = at("2026-11-25T10:00+01:00"), at("2026-11-25T20:00+01:00")


@pytest.fixture
def school(tmp_path: Path) -> Policy:
    return Policy(config(tmp_path, SCHOOL), {"games": "block", "trial": "monitor", "never": "allow"})


def test_a_rule_holds_in_its_schedule(school: Policy) -> None:
    games = [found("games")]
    assert school.view(CLIENT, LESSON).decide(games) is games[0]
    assert school.view(CLIENT, EVENING).decide(games) is PASS
    assert school.view(CLIENT, LESSON).decide(games) is games[0]


def test_clients_in_no_group_have_rules_of_their_own(school: Policy) -> None:
    assert school.view(STRANGER, LESSON).decide([found("games")]) is PASS
    assert school.view(STRANGER, LESSON).decide([found("phishing", "adverts")]).action == "block"
    assert school.view(CLIENT, LESSON).decide([found("phishing", "adverts")]).action == "monitor"


def test_where_no_rule_fits_the_lists_own_use_counts(school: Policy) -> None:
    for client in (CLIENT, STRANGER):
        view = school.view(client, LESSON)
        assert view.decide([found("phishing")]).action == "block"
        assert view.decide([found("trial")]) == found("trial", action="monitor")
        assert view.decide([found("never")]) == found("never", action="allow")


LESSONS = """
[schedule.lessons]
zone = "Europe/Madrid"
days = ["mon", "tue", "wed", "thu", "fri"]
from = "08:30"
to = "17:00"
[schedule.evening]
zone = "Europe/Madrid"
from = "19:00"
to = "21:00"
"""
NIGHT = at("2026-11-25T23:00+01:00")


@each_row(
    ("action", "use", "inside", "outside"),
    [
        ("block", "block", "block", "pass"),
        ("block", "monitor", "block", "monitor"),
        ("block", "allow", "allow", "allow"),
        ("monitor", "block", "monitor", "block"),
        ("monitor", "monitor", "monitor", "pass"),
        ("monitor", "allow", "allow", "allow"),
        ("allow", "block", "pass", "block"),
        ("allow", "monitor", "pass", "monitor"),
        ("allow", "allow", "allow", "allow"),
    ],
)
def test_a_rule_with_a_schedule_means_only_then(
    tmp_path: Path, action: Use, use: Use, inside: str, outside: str
) -> None:
    text = f'[[rule]]\ncategories = ["games"]\naction = "{action}"\nschedule = "lessons"\n'
    policy = Policy(config(tmp_path, text + LESSONS), {"a": use})
    for when, expected in ((LESSON, inside), (EVENING, outside)):
        view = policy.view(CLIENT, when)
        assert view.decide([found("a", "games")]).action == expected
        assert view.decide([found("a", "other")]).action == use


@each_row(
    ("first", "second", "lesson", "evening", "night"),
    [
        (("block", "lessons"), ("block", "evening"), "block", "block", "pass"),
        (("block", "lessons"), ("allow", "evening"), "block", "pass", "pass"),
        (("allow", "evening"), ("block", "lessons"), "block", "pass", "pass"),
        (("allow", "lessons"), ("allow", "evening"), "pass", "pass", "block"),
        (("block", "lessons"), ("monitor", "evening"), "block", "monitor", "pass"),
        (("allow", "lessons"), ("monitor", "evening"), "pass", "monitor", "block"),
        (("block", "lessons"), ("block", None), "block", "block", "block"),
        (("block", "lessons"), ("monitor", None), "block", "monitor", "monitor"),
        (("block", None), ("allow", "lessons"), "block", "block", "block"),
    ],
)
def test_two_rules_with_schedules(
    tmp_path: Path,
    first: tuple[Use, str | None],
    second: tuple[Use, str | None],
    lesson: str,
    evening: str,
    night: str,
) -> None:
    tables = tuple(RuleTable(action=action, schedule=schedule) for action, schedule in (first, second))
    schedules = config(tmp_path, LESSONS).schedule
    policy = Policy(Config(rule=tables, schedule=schedules), {"a": "block"})
    for when, expected in ((LESSON, lesson), (EVENING, evening), (NIGHT, night)):
        view = policy.view(CLIENT, when)
        assert view.decide([found("a")]).action == expected
        assert view.uses("a") is (expected == "block")
        assert view.watches("a") is (expected in ("block", "monitor"))


def test_no_rule_changes_an_exception(tmp_path: Path) -> None:
    policy = Policy(config(tmp_path, '[[rule]]\naction = "block"'), {"never": "allow"})
    view = policy.view(CLIENT, LESSON)
    excused = [found("phishing", rank=9), found("phishing", action="allow")]
    assert view.decide(excused) is excused[1]
    assert view.decide([found("phishing", rank=9), found("never")]).action == "allow"
    # An origin may take another of several values or ports than the one that is allowed.
    doubtful = found("never")._replace(doubtful=True)
    assert view.decide([found("phishing", rank=9), doubtful]).blocked
    assert view.outcome(doubtful).action == view.decide([doubtful]).action == "pass"


def test_what_does_not_count_hides_nothing(school: Policy) -> None:
    dropped, other = found("games", rank=9), found("phishing", rank=1)
    assert school.view(CLIENT, EVENING).decide([dropped, other]) is other
    monitored = found("trial", rank=99)
    assert school.view(CLIENT, EVENING).decide([dropped, monitored, other]) is other


def test_group_and_page(school: Policy) -> None:
    view = school.view(CLIENT, LESSON)
    assert (view.group, view.page) == ("classrooms", "school")
    view = school.view(STRANGER, LESSON)
    assert (view.group, view.page) == ("", "")


def test_one_view_serves_a_group_until_a_schedule_changes(school: Policy) -> None:
    view, strangers = school.view(CLIENT, LESSON), school.view(STRANGER, LESSON)
    assert school.view("192.0.2.6", LESSON + 1) is view
    assert school.until(LESSON) == at("2026-11-25T17:00+01:00")
    assert school.view(CLIENT, school.until(LESSON) - 1) is view
    assert school.view(CLIENT, school.until(LESSON)) is not view
    assert school.view(STRANGER, school.until(LESSON)) is strangers, "whom that is nothing to"


def test_only_a_schedule_that_changes_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a thousand would be at each end of a lesson, while everybody waits."""
    computed, next_change = list[float](), Schedule.next_change

    def counted(one: Schedule, now: float) -> float:
        computed.append(now)
        return next_change(one, now)

    monkeypatch.setattr(Schedule, "next_change", counted)
    policy = Policy(config(tmp_path, LESSONS + LESSONS.replace("[schedule.", "[schedule.other-")))
    ends = policy.until(LESSON)
    assert len(computed) == 2, "those that say the same are one"
    for _ in range(3):
        assert policy.until(ends) > ends
    assert computed[2:] == [ends]
    assert policy.until(LESSON) == ends, "by a clock that was set back"


def test_without_schedules_views_last(tmp_path: Path) -> None:
    policy = Policy(config(tmp_path, '[[rule]]\naction = "monitor"'))
    assert policy.until(LESSON) == float("inf")
    assert policy.view(CLIENT, LESSON) is policy.view(CLIENT, LESSON * 2)


class Table:
    def __init__(self) -> None:
        self.changes = 0
        self.macs: dict[str, str] = {}

    def mac(self, address: str) -> str | None:
        return self.macs.get(address)


def test_a_clients_group_is_found_anew_when_the_neighbours_change(tmp_path: Path) -> None:
    table = Table()
    text = '[[group]]\nname = "machines"\nmacs = ["02:00:00:00:00:01"]'
    policy = Policy(config(tmp_path, text), neighbours=table)
    assert policy.view(CLIENT, LESSON).group == ""
    table.macs[CLIENT] = "02:00:00:00:00:01"
    assert policy.view(CLIENT, LESSON).group == ""
    table.changes += 1
    assert policy.view(CLIENT, LESSON).group == "machines"


@each_row(
    ("text", "uses", "trivial"),
    [
        ("", {}, True),
        ("", {"a": "block"}, True),
        ("", {"a": "block", "b": "monitor"}, False),
        ("", {"a": "allow"}, False),
        ('[[rule]]\naction = "block"', {}, False),
        ('[[group]]\nname = "a"\nnetworks = ["192.0.2.0/24"]', {}, False),
    ],
)
def test_trivial(tmp_path: Path, text: str, uses: Mapping[str, Use], trivial: bool) -> None:
    assert Policy(config(tmp_path, text), uses).is_trivial is trivial


@each_row(
    ("rules", "use", "uses", "watches"),
    [
        ("", "block", True, True),
        ("", "monitor", False, True),
        ("", "allow", False, False),
        ('[[rule]]\naction = "allow"', "block", False, False),
        ('[[rule]]\naction = "monitor"', "block", False, True),
        ('[[rule]]\naction = "block"', "monitor", True, True),
        ('[[rule]]\naction = "block"', "allow", False, False),
        ('[[rule]]\nlists = ["b"]\naction = "allow"', "block", True, True),
        ('[[rule]]\ncategories = ["x"]\naction = "block"', "monitor", True, True),
        (
            '[[rule]]\nlists = ["a"]\ncategories = ["x"]\naction = "allow"\n'
            '[[rule]]\ncategories = ["x"]\naction = "block"',
            "monitor",
            False,
            True,
        ),
        (
            '[[rule]]\ncategories = ["x"]\naction = "block"\n[[rule]]\naction = "allow"',
            "block",
            True,
            True,
        ),
    ],
)
def test_whether_a_list_is_of_use(tmp_path: Path, rules: str, use: Use, uses: bool, watches: bool) -> None:
    view = Policy(config(tmp_path, rules), {"a": use}).view(CLIENT, LESSON)
    assert (view.uses("a"), view.watches("a")) == (uses, watches)


LISTS, CATEGORIES = ("a", "b", "c"), ("", "x", "y")
ACTIONS: tuple[Use, ...] = ("block", "monitor", "allow")


def _some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).map(tuple)


SCHEDULES = {
    "always": ScheduleTable(zone="UTC"),
    "not now": ScheduleTable.model_validate({"zone": "UTC", "from": "00:00", "to": "00:01"}),
}
rule_tables = st.builds(
    RuleTable,
    lists=_some(LISTS),
    categories=_some(("x", "y")),
    action=st.sampled_from(ACTIONS),
    schedule=st.sampled_from((None, None, *SCHEDULES)),
)
verdicts = st.builds(
    Verdict,
    st.sampled_from(("block", "block", "allow")),
    entry=st.uuids().map(str),
    list=st.sampled_from(LISTS),
    category=st.sampled_from(CATEGORIES),
    rank=st.integers(0, 3),
    doubtful=st.just(False),
)


def model(rules: list[RuleTable], uses: dict[str, Use], verdict: Verdict) -> str:
    """What becomes of one entry, in so many words."""
    if verdict.action == "allow" or uses.get(verdict.list) == "allow":
        return "allow"
    use = uses.get(verdict.list, "block")
    only_then = False
    for rule in rules:
        if rule.lists is not None and verdict.list not in rule.lists:
            continue
        if rule.categories is not None and verdict.category not in rule.categories:
            continue
        if rule.schedule == "not now":
            only_then |= rule.action == use
            continue
        return "pass" if rule.action == "allow" else rule.action
    return "pass" if only_then else use


@given(
    rules=st.lists(rule_tables, max_size=4),
    uses=st.dictionaries(st.sampled_from(LISTS), st.sampled_from(ACTIONS)),
    several=st.lists(st.lists(verdicts, max_size=4), max_size=4),
)
def test_against_a_plain_model(
    rules: list[RuleTable], uses: dict[str, Use], several: list[list[Verdict]]
) -> None:
    view = Policy(Config(rule=tuple(rules), schedule=SCHEDULES), uses).view(CLIENT, LESSON)
    for on_host in several:
        decided = view.decide(on_host)
        by_outcome: dict[str, list[Verdict]] = {}
        for verdict in on_host:
            outcome = model(rules, uses, verdict)
            assert view.outcome(verdict).action == outcome
            by_outcome.setdefault(outcome, []).append(verdict)
        expected = next((a for a in ("allow", "block", "monitor") if a in by_outcome), "pass")
        assert decided.action == expected
        if expected == "pass":
            assert decided is PASS
        else:
            best = max(by_outcome[expected], key=lambda v: (v.rank, v.entry))
            assert decided.entry == best.entry
            assert decided.rank == best.rank


@given(rules=st.lists(rule_tables, max_size=4), use=st.sampled_from(ACTIONS))
def test_a_list_is_of_use_where_one_of_its_entries_is(rules: list[RuleTable], use: Use) -> None:
    view = Policy(Config(rule=tuple(rules), schedule=SCHEDULES), {"a": use}).view(CLIENT, LESSON)
    outcomes = {model(rules, {"a": use}, found("a", c)) for c in (*CATEGORIES, "another")}
    assert view.uses("a") == ("block" in outcomes)
    assert view.watches("a") == bool(outcomes & {"block", "monitor"})


@given(st.lists(verdicts, max_size=5))
def test_a_trivial_policy_decides_as_none_does(on_host: list[Verdict]) -> None:
    view: View = Policy(Config()).view(CLIENT, LESSON)
    assert view.decide(on_host) == plain(on_host)
