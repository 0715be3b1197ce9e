"""What root records by hand, the service can go on with."""

import os
from pathlib import Path

import pytest

from records.recording import events
from urlward.records.heartbeat import Heartbeat
from urlward.records.spool import Spool
from urlward.records.wire import listening

SERVICE = 4321


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_is_the_services(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, SERVICE, SERVICE)
    Heartbeat(state).begin(0)
    Spool(state / "spool" / "sqlite", 1 << 20).append(events(1))
    with listening(state / "records.sock"):
        owners = {path.name: path.lstat().st_uid for path in state.rglob("*")}
    assert set(owners) == {"records.run", "records.sock", "spool", "sqlite", "000000000001.spool"}
    assert set(owners.values()) == {SERVICE}
