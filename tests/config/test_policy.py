from pathlib import Path

from config.support import error
from lists.policy_support import config as read
from rows import each_row
from urlward.config.policy import (
    GroupTable,
    RuleTable,
    ScheduleTable,
    Use,
    policy_problems,
)

LESSONS = '[schedule.lessons]\nzone = "Europe/Madrid"\n'


def message(folder: Path, text: str) -> str:
    return error(folder / "urlward.toml", text)


def test_every_key(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        [[group]]
        name = "classrooms"
        networks = ["192.0.2.0/24", "2001:db8:1::/48"]
        macs = ["02:00:00:00:00:0A", "02-00-00-00-00-0b"]
        page = "school"
          [[group.rule]]
          lists = ["phishing"]
          categories = ["Malware"]
          action = "block"
          schedule = "lessons"
        [[rule]]
        action = "monitor"
        [schedule.lessons]
        zone = "Europe/Madrid"
        days = ["mon", "fri"]
        from = "08:30"
        to = "17:00"
        [pages.school]
        operator = "Example School"
        template_dir = "school"
        """,
    )
    assert config.group == (
        GroupTable(
            name="classrooms",
            networks=("192.0.2.0/24", "2001:db8:1::/48"),
            macs=("02:00:00:00:00:0a", "02:00:00:00:00:0b"),
            page="school",
            rule=(
                RuleTable(lists=("phishing",), categories=("malware",), action="block", schedule="lessons"),
            ),
        ),
    )
    assert config.rule == (RuleTable(action="monitor"),)
    lessons = config.schedule["lessons"]
    assert (lessons.zone, lessons.days, lessons.begins, lessons.ends) == (
        "Europe/Madrid",
        ("mon", "fri"),
        8 * 60 + 30,
        17 * 60,
    )
    assert config.pages["school"].operator == "Example School"
    assert config.pages["school"].template_dir == str(tmp_path / "school")
    for table in (config.group[0], config.group[0].rule[0], lessons):
        assert table.model_fields_set == set(type(table).model_fields)


def test_a_schedule_without_days_and_times_is_always(tmp_path: Path) -> None:
    lessons = read(tmp_path, LESSONS).schedule["lessons"]
    assert (len(lessons.days), lessons.begins, lessons.ends) == (7, 0, 24 * 60)


GROUP = '[[group]]\nname = "a"\nnetworks = ["192.0.2.0/24"]\n'
OTHER = '[[group]]\nname = "b"\nnetworks = ["198.51.100.0/24"]\n'


@each_row(
    ("text", "expected"),
    [
        ("[[group]]\nnetworks = []", "group.0.name: this key is needed"),
        ('[[group]]\nname = ""', "group.0.name: input should not be empty"),
        ('[[group]]\nname = "a\\nb"', "group.0.name: a name has printable characters alone"),
        (
            '[[group]]\nname = "a"\nnetworks = ["192.0.2.1/24"]',
            "group.0.networks: '192.0.2.1/24' is not a network, such as 192.0.2.0/24: "
            "192.0.2.1/24 has host bits set",
        ),
        (
            '[[group]]\nname = "a"\nmacs = ["02:00:00:00:00"]',
            "group.0.macs.0: not a MAC address, such as 02:00:00:00:00:01",
        ),
        (
            '[[group]]\nname = "a"\nmacs = ["02:00:00:00:00:01", "01:00:5e:00:00:01"]',
            "group.0.macs.1: a MAC address of a group of machines, not of one",
        ),
        ("[[rule]]", "rule.0.action: this key is needed"),
        ('[[rule]]\naction = "Block"', "rule.0.action: input should be 'block', 'monitor' or 'allow'"),
        ('[[rule]]\naction = "block"\nlists = []', "rule.0.lists: input should not be empty"),
        ('[[rule]]\naction = "block"\ncategories = []', "rule.0.categories: input should not be empty"),
        (
            '[[rule]]\naction = "block"\ncategories = ["a b"]',
            "rule.0.categories.0: a category has 1 to 64 letters, digits, or ._-",
        ),
        ('[schedule.a]\nfrom = "08:00"', "schedule.a.zone: this key is needed"),
        ('[schedule.a]\nzone = "Madrid"', "schedule.a.zone: no such time zone; one is Europe/Madrid"),
        ('[schedule.a]\nzone = "Europe"', "schedule.a.zone: no such time zone; one is Europe/Madrid"),
        ('[schedule.a]\nzone = "../etc/passwd"', "schedule.a.zone: no such time zone; one is Europe/Madrid"),
        ('[schedule.a]\nzone = ""', "schedule.a.zone: no such time zone; one is Europe/Madrid"),
        (
            LESSONS + 'from = "8:30"',
            "schedule.lessons.from: not a time of day from 00:00 to 24:00, such as 08:30",
        ),
        (
            LESSONS + "to = 17:00:00",
            "schedule.lessons.to: not a time of day from 00:00 to 24:00, such as 08:30",
        ),
        (
            LESSONS + 'to = "24:01"',
            "schedule.lessons.to: not a time of day from 00:00 to 24:00, such as 08:30",
        ),
        (LESSONS + "begins = 5", "schedule.lessons.begins: no such key"),
        (
            LESSONS + 'days = ["mo"]',
            "schedule.lessons.days.0: input should be 'mon', 'tue', 'wed', 'thu', 'fri', 'sat' or 'sun'",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text) == expected


@each_row(
    ("text", "expected"),
    [
        (
            GROUP + OTHER + '[[group]]\nname = "c"\nnetworks = ["203.0.113.0/24", "192.0.2.0/24"]',
            "group.2.networks.1: 192.0.2.0/24 is in group.0.networks.0 (a) already",
        ),
        (
            GROUP + '[[group]]\nname = "b"\nnetworks = ["::ffff:192.0.2.0/120"]',
            "group.1.networks.0: 192.0.2.0/24 is in group.0.networks.0 (a) already",
        ),
        (
            '[[group]]\nname = "a"\nmacs = ["02:00:00:00:00:0a"]\n'
            '[[group]]\nname = "b"\nmacs = ["02-00-00-00-00-0A"]',
            "group.1.macs.0: 02:00:00:00:00:0a is in group.0.macs.0 (a) already",
        ),
        (GROUP + OTHER.replace('"b"', '"a"'), "group.1.name: group.0.name (a) has that name already"),
        ('[[group]]\nname = "a"', "group.0: neither networks nor macs, so that nobody is in it"),
        (GROUP + 'page = "school"', "group.0.page: there is no [pages.school]"),
        (
            GROUP + '[[group.rule]]\naction = "block"\nschedule = "lessons"',
            "group.0.rule.0.schedule: there is no [schedule.lessons]",
        ),
        (
            '[[rule]]\naction = "block"\nschedule = "lessons"',
            "rule.0.schedule: there is no [schedule.lessons]",
        ),
        (
            '[[rule]]\naction = "block"\n[[rule]]\naction = "allow"\nlists = ["a"]',
            "rule.1: never reached, since rule.0 fits all that it does",
        ),
        (
            GROUP
            + '[[group.rule]]\nlists = ["a"]\naction = "block"\n'
            + '[[group.rule]]\nlists = ["b", "a"]\naction = "block"\n'
            + '[[group.rule]]\nlists = ["b"]\ncategories = ["x"]\naction = "allow"',
            "group.0.rule.2: never reached, since group.0.rule.1 fits all that it does",
        ),
        (
            LESSONS + '[[rule]]\naction = "block"\nschedule = "lessons"\n'
            '[[rule]]\naction = "allow"\nschedule = "lessons"\nlists = ["a"]',
            "rule.1: never reached, since rule.0 fits all that it does",
        ),
        (LESSONS + "days = []", "schedule.lessons.days: no day, so it is never in force"),
        (
            LESSONS + 'from = "08:00"\nto = "08:00"',
            "schedule.lessons: from and to are one time; leave both out for the whole day",
        ),
        (
            LESSONS + 'from = "24:00"',
            "schedule.lessons: from and to are one time; leave both out for the whole day",
        ),
        (
            '[schedule."a\\nb"]\nzone = "UTC"\ndays = []',
            r"schedule.'a\nb'.days: no day, so it is never in force",
        ),
        (LESSONS + LESSONS, "not TOML: Cannot declare ('schedule', 'lessons') twice (column 18)"),
    ],
)
def test_contradictions_name_both_places(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text) == expected


@each_row(
    "text",
    [
        GROUP + '[[group]]\nname = "b"\nnetworks = ["192.0.2.0/25", "192.0.0.0/16"]',
        '[[rule]]\naction = "block"\nlists = ["a"]\n[[rule]]\naction = "allow"',
        '[[rule]]\naction = "block"\nlists = ["a"]\ncategories = ["x"]\n'
        '[[rule]]\naction = "allow"\nlists = ["a"]',
        LESSONS + '[[rule]]\naction = "block"\nschedule = "lessons"\n[[rule]]\naction = "allow"',
        '[[rule]]\naction = "block"\nlists = ["a"]\n'
        + GROUP
        + '[[group.rule]]\naction = "allow"\nlists = ["a"]',
        LESSONS + 'from = "22:00"\nto = "06:00"',
        LESSONS + 'from = "00:01"\nto = "00:00"',
    ],
)
def test_what_is_no_contradiction(tmp_path: Path, text: str) -> None:
    read(tmp_path, text)


def check(rule: RuleTable) -> list[str]:
    uses: dict[str, Use] = {"phishing": "block", "exceptions": "allow"}
    return [str(problem) for problem in policy_problems((), (rule,), {}, {}, uses)]


def test_rules_name_lists_that_there_are() -> None:
    assert check(RuleTable(lists=("phishing",), action="monitor")) == []
    assert check(RuleTable(lists=("phishing", "fishing"), action="monitor")) == [
        "rule.0.lists.1: there is no list fishing; there are phishing, exceptions"
    ]


def test_no_rule_is_for_exceptions() -> None:
    assert check(RuleTable(lists=("exceptions",), action="block")) == [
        "rule.0.lists.0: exceptions is a list of exceptions, which no rule changes"
    ]


def test_schedules_are_made_by_their_keys() -> None:
    table = ScheduleTable.model_validate({"zone": "UTC", "from": "23:59", "to": "24:00"})
    assert (table.begins, table.ends) == (23 * 60 + 59, 24 * 60)
