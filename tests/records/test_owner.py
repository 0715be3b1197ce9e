"""What root records by hand, the service can go on with."""

import os
from pathlib import Path

import pytest

from urlward.records.asking import Desk
from urlward.records.outbox import Outbox, batch_of
from urlward.records.writer import Mark

SERVICE = 4321


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_what_root_makes_is_the_services(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, SERVICE, SERVICE)
    outbox, mark = Outbox(state), Mark(state, "a", "gw1", "worker a")
    outbox.append([batch_of([])])
    mark.make()
    desk = Desk(state, {}, lambda *_: None)
    await desk.start()
    owners = {path.name: path.lstat().st_uid for path in state.rglob("*")}
    await desk.close()
    mark.remove()
    outbox.close()
    names = {name for name in owners if not name.endswith(".writer")}
    assert names == {"outbox", "outbox.db", "outbox.db-wal", "outbox.db-shm", "records.sock"}
    assert len(owners) == 6
    assert set(owners.values()) == {SERVICE}
