"""The waiting room: turns, and who has to make room."""

from hypothesis import given
from hypothesis import strategies as st

from urlward.proxy.passwords import WaitingRoom


def nothing() -> None:
    pass


def test_turns_go_round_the_networks() -> None:
    room: WaitingRoom[str] = WaitingRoom(10)
    for network, work in (("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("c", "1")):
        assert room.enter(network, work, nothing) == (True, None)
    done = []
    while (work := room.next()) is not None:
        done.append((work, len(list(room.leave(work)))))
    assert done == [("1", 2), ("4", 1), ("2", 1), ("3", 1)]
    assert not len(room)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), max_size=120),
    st.integers(1, 12),
)
def test_a_network_gets_in_wherever_another_has_more(steps: list[tuple[int, int, int]], most: int) -> None:
    room: WaitingRoom[int] = WaitingRoom(most)
    waits: dict[int, tuple[str, int]] = {}
    """Who is inside, by a number of their own."""
    for number, (network, action, work) in enumerate(steps):
        if not action:
            turn = room.next()
            assert (turn is None) == (not waits)
            gone = [] if turn is None else list(room.leave(turn))
            assert sorted(done() for done in gone) == sorted(n for n, (_, w) in waits.items() if w == turn)  # type: ignore[func-returns-value, type-var]
            waits = {n: each for n, each in waits.items() if each[1] != turn}
            continue
        name = str(network)
        counts = {each: 0 for each, _ in waits.values()} | {name: 0}
        for each, _ in waits.values():
            counts[each] += 1
        largest = max(counts.values())
        entered, out = room.enter(name, work, lambda number=number: number)  # type: ignore[misc]
        assert entered == (len(waits) < most or counts[name] + 1 < largest)
        if out is not None:
            gone_number = out()  # type: ignore[func-returns-value]
            assert counts[waits.pop(gone_number)[0]] == largest  # type: ignore[call-overload]
        if entered:
            waits[number] = name, work
        assert len(room) == len(waits) <= most
        assert room.works == len({work for _, work in waits.values()})
