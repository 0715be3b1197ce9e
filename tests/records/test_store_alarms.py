from types import SimpleNamespace

from urlward.records.delivery import DROPS_AGAIN, LAG, StoreAlarms


def made(*, down: bool = False) -> tuple[StoreAlarms, list[tuple[str, str]], SimpleNamespace]:
    said: list[tuple[str, str]] = []
    now = SimpleNamespace(seconds=0.0)
    return StoreAlarms("s", lambda *words: said.append(words), lambda: now.seconds, down=down), said, now


def test_a_failure_and_its_end_are_said_once() -> None:
    alarms, said, _ = made()
    alarms.back()
    assert said == []
    for _ in range(3):
        alarms.failed("no answer")
    assert alarms.down
    alarms.arrived(5)
    alarms.arrived(7)
    alarms.back()
    alarms.back()
    assert said == [
        ("store-down", "store s: no answer; events wait on the disk"),
        ("store-back", "store s: takes events again, 12 that waited have arrived"),
    ]


def test_what_a_process_before_has_said_is_not_said_again() -> None:
    alarms, said, _ = made(down=True)
    alarms.failed("no answer")
    alarms.back()
    assert [kind for kind, _ in said] == ["store-back"]


def test_losses_are_said_now_and_then_and_in_all_at_the_end() -> None:
    alarms, said, now = made()
    alarms.lost(0)
    alarms.failed("no answer")
    alarms.lost(5)
    alarms.lost(6)
    now.seconds += DROPS_AGAIN
    alarms.lost(9)
    alarms.back()
    alarms.lost(10)
    alarms.lost(10)
    found = [text.split(": ")[1].split()[0] for kind, text in said if kind == "dropped"]
    assert found == ["5", "9", "10"]


def test_all_that_was_lost_is_said_after_the_word_that_the_store_is_back() -> None:
    # Another thread looks for losses at any moment: the first at which all of them are told is the last word.
    said: list[str] = []

    def tell(kind: str, text: str) -> None:
        if kind == "store-back":
            alarms.lost(5)
        said.append(kind)

    alarms = StoreAlarms("s", tell, lambda: 0.0, down=True)
    alarms.lost(5)
    alarms.back()
    alarms.lost(5)
    alarms.lost(5)
    assert said == ["dropped", "store-back", "dropped"]


def test_a_store_that_does_not_keep_up_for_long_is_said_once_as_is_its_end() -> None:
    alarms, said, now = made()
    for seconds in (0.0, LAG / 2, LAG, LAG + 1, LAG + 2):
        now.seconds = seconds
        alarms.waiting(7)
    assert said == [("store-lagging", "store s: takes events more slowly than they come; 7 wait on the disk")]
    alarms.waiting(0)
    alarms.waiting(0)
    assert [kind for kind, _ in said] == ["store-lagging", "store-level"]
    now.seconds += LAG
    alarms.waiting(1)
    assert len(said) == 2


def test_a_store_that_is_down_is_not_said_to_lag_besides() -> None:
    alarms, said, now = made()
    alarms.failed("no answer")
    now.seconds = LAG + 1
    alarms.waiting(7)
    assert [kind for kind, _ in said] == ["store-down"]
