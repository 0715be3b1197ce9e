from dashboard.admin_support import event
from rows import each_row
from urlward.dashboard.live_sources import of_alarm, of_list


def test_a_list_that_no_worker_has_says_so():
    row = of_list("hotline", 0, None, 0, now=100.0, feeds={"hotline"})
    assert (row["kind"], row["age"], row["created"]) == ("feed", None, "")
    assert row["note"] == "no worker has it in force"


@each_row(
    ("name", "kind"),
    [("hotline", "feed"), ("own", "file"), ("own-entries", "own"), ("allows", "allows")],
)
def test_kinds_of_lists(name: str, kind: str):
    assert of_list(name, 1, 2, 50, now=40.0, feeds={"hotline"}) == {
        "name": name, "kind": kind, "serial": 1, "created": "1970-01-01T00:00:50Z", "age": 0, "entries": 2,
        "note": "",
    }  # fmt: skip


@each_row(
    ("detail", "shown"),
    [
        ("", ("alarm", "")),
        ('{"alarm": "stale", "text": "no refresh"}', ("stale", "no refresh")),
        ("[]", ("alarm", "[]")),
        ("{", ("alarm", "{")),
    ],
)
def test_alarms_say_what_they_can(detail: str, shown: tuple[str, str]):
    row = of_alarm(event(1) | {"kind": "alarm", "detail": detail})
    assert (row["alarm"], row["text"]) == shown
