from urlward.dashboard.handler import BURST, EVERY, MAX_ADDRESSES, WrongGuesses


def test_some_wrong_guesses_are_free_and_then_time_has_to_pass():
    attempts = WrongGuesses()
    for _ in range(BURST):
        assert attempts.wait("192.0.2.1", 100.0) == 0
        attempts.wrong("192.0.2.1", 100.0)
    assert attempts.wait("192.0.2.1", 100.0) == EVERY
    assert attempts.wait("192.0.2.1", 100.0 + EVERY / 2) == EVERY / 2
    assert attempts.wait("192.0.2.1", 100.0 + EVERY) == 0
    attempts.wrong("192.0.2.1", 100.0 + EVERY)
    assert attempts.wait("192.0.2.1", 100.0 + EVERY) == EVERY


def test_another_address_is_not_held_up():
    attempts = WrongGuesses()
    for _ in range(BURST + 1):
        attempts.wrong("192.0.2.1", 0.0)
    assert attempts.wait("192.0.2.2", 0.0) == 0


def test_after_a_while_all_are_free_again():
    attempts = WrongGuesses()
    for _ in range(BURST):
        attempts.wrong("192.0.2.1", 0.0)
    for _ in range(BURST - 1):
        assert attempts.wait("192.0.2.1", BURST * EVERY) == 0
        attempts.wrong("192.0.2.1", BURST * EVERY)
    assert attempts.wait("192.0.2.1", BURST * EVERY) == 0


def test_memory_is_bounded():
    attempts = WrongGuesses()
    for number in range(MAX_ADDRESSES + 10):
        attempts.wrong(str(number), 0.0)
    assert len(attempts._full_at) == MAX_ADDRESSES
