import os
import socket
import subprocess
from pathlib import Path

import pytest

from urlward.engine.errors import UrlwardError
from urlward.lab import isolation
from urlward.lab.isolation import child_of, children_of, copy_out, environment, parent_of, started_at


def test_who_a_process_is() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert started_at(process.pid)
        assert parent_of(process.pid) == os.getpid()
        assert process.pid in children_of(os.getpid())
        assert child_of(process.pid) is None
    finally:
        process.kill()
        # Ended, and not yet waited for: that is no process that runs.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert started_at(process.pid) is None
        process.wait()
    assert parent_of(process.pid) is None


def test_keys_and_large_files_are_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for name in ("logs/a.log", "origin.key", "ca/mitmproxy-ca.pem", "ca/mitmproxy-ca-cert.pem", "o/bulk/64"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    copy_out(folder, tmp_path / "kept")
    kept = {str(p.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("*") if p.is_file()}
    assert kept == {"logs/a.log", "ca/mitmproxy-ca-cert.pem"}
    (tmp_path / "file").touch()
    with pytest.raises(UrlwardError, match="file"):
        copy_out(folder, tmp_path / "file")


def test_sockets_and_a_states_keys_are_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "state").mkdir(parents=True)
    for name in ("key", "key.copy", "retention.json"):
        (folder / "state" / name).touch()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(folder / "state" / "socket"))
        copy_out(folder, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept" / "state").iterdir()] == ["retention.json"]


def test_programs_have_the_labs_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("LANG", "C")
    made = environment()
    assert "https_proxy" not in made, "the machine's proxy is not the lab's"
    assert made["LANG"] == "C"
    assert all(made[name].startswith(str(isolation.WORK)) for name in ("HOME", "TMPDIR", "SSL_CERT_FILE"))
