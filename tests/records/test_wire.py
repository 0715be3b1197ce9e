import contextlib
import json
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.recording import events
from urlward.records.wire import (
    MAX_BATCH,
    MAX_LINE,
    Batch,
    Bye,
    Hello,
    Snapshot,
    WireError,
    decode,
    decode_ack,
    encode,
    encode_batch,
    listening,
    socket_address,
)


def test_messages_arrive_as_they_were_sent() -> None:
    sent = events(3)
    assert decode(encode({"hello": "gw1-0", "node": "gw1"})) == Hello("gw1-0", "gw1")
    assert decode(encode_batch(7, sent)) == Batch(7, sent, 0)
    assert decode(encode({"metrics": {"requests": 1}})) == Snapshot({"requests": 1})
    assert decode(encode({"bye": True})) == Bye()
    assert decode_ack(b'{"ack": 7}\n') == 7


def test_what_is_no_event_is_counted_and_the_others_are_taken() -> None:
    good = list(events(1)[0])
    rows = [good, 5, good[:2], [None] * len(good), good]
    assert decode(encode({"batch": 1, "events": rows})) == Batch(1, events(1) * 2, 3)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"5",
        b"[]",
        b"{}",
        b'{"hello": ""}',
        b'{"hello": "", "node": ""}',
        b'{"hello": "a\\u0000", "node": ""}',
        b'{"hello": "' + b"x" * 201 + b'", "node": ""}',
        b'{"batch": -1, "events": []}',
        b'{"batch": true, "events": []}',
        b'{"batch": 1.5, "events": []}',
        b'{"batch": 1e400, "events": []}',
        b'{"batch": 9007199254740993, "events": []}',
        b'{"batch": 1}',
        b'{"batch": 1, "events": [' + b"0," * MAX_BATCH + b"0]}",
        b'{"metrics": {"a": NaN}}',
        b'{"metrics": []}',
        b'{"bye": false}',
        b"[" * 100_000,
        b'{"metrics": {"a": ' + b"9" * 5000 + b"}}",
        b" " * (MAX_LINE + 1),
    ],
)
def test_hostile_lines_are_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        decode(line)
    with pytest.raises(WireError):
        decode_ack(line)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["hello", "node", "batch", "events", "metrics", "bye", "ack"]), x
            )
        ),
    )
)
def test_whatever_json_says_is_a_message_or_refused(said: object) -> None:
    line = json.dumps(said).encode()
    for read in (decode, decode_ack):
        with contextlib.suppress(WireError):
            read(line)


@pytest.mark.parametrize("message", [{"a": object()}, {"a": "\ud800"}, {"a": "x" * MAX_LINE}])
def test_what_cannot_be_said_is_not_sent(message: dict[str, object]) -> None:
    with pytest.raises(WireError):
        encode(message)


@pytest.mark.parametrize("deep", [False, True])
def test_a_socket_is_its_owners_alone_however_long_its_path(tmp_path: Path, deep: bool) -> None:
    folder = tmp_path / ("d" * 120) if deep else tmp_path
    folder.mkdir(exist_ok=True)
    path = folder / "records.sock"
    path.write_text("what a process before has left")
    with listening(path) as server, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket_address(path) as address:
            client.connect(address)
        server.accept()[0].close()
    with pytest.raises(OSError, match="No such file"), socket_address(folder / ("e" * 120) / "sock"):
        pass
