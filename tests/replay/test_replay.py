import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Done, wait_for
from lists.support import artifact, key_file
from replay.replay_support import LOGS, SAMPLE, combined, expected, sample, squid
from urlward import cli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMMAND = [sys.executable, "-m", "urlward", "lab", "replay"]


type Replay = Callable[..., Done]


@pytest.fixture
def replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiles_here: None
) -> Replay:
    """Runs it with the sample list, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, json: bool = True) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            cli.main(
                ["lab", "replay", "--list", str(SAMPLE), *(["--json"] if json else []), *map(str, arguments)]
            )
        assert type(raised.value.code) is int
        return Done(raised.value.code, *capsys.readouterr())

    return run


def ids(data: dict[str, Any]) -> dict[str, int]:
    return {entry["id"]: entry["requests"] for entry in data["entries"]}


@pytest.mark.parametrize(
    ("arguments", "lines", "requests", "entries", "bad"),
    [
        (["squid.log"], 9, 7, {"S-1": 1, "S-3": 1, "S-4": 1}, 2),
        (["combined.log", "--host", "news.example"], 7, 4, {"S-3": 1, "S-4": 2}, 2),
        (["vhost_combined.log"], 5, 4, {"S-3": 1, "S-4": 1, "S-8": 1}, 1),
        (["host.log"], 2, 2, {"S-4": 1}, 0),
        (["log.har"], 4, 2, {"S-4": 1}, 2),
        (["log.csv"], 7, 4, {"S-3": 1, "S-4": 1, "S-5": 1}, 1),
        (["log.csv", "--column", "Requested URL"], 7, 4, {"S-3": 1, "S-4": 1, "S-5": 1}, 1),
        (["urls.txt"], 7, 4, {"S-3": 2, "S-4": 1}, 1),
        (["crlf.txt"], 2, 2, {"S-3": 1}, 0),
    ],
)
def test_each_kind_of_log(
    replay: Replay, arguments: list[str], lines: int, requests: int, entries: dict[str, int], bad: int
) -> None:
    name, *options = arguments
    data = replay(LOGS / name, *options).data
    assert (data["lines"], data["requests"], data["blocked"]) == (lines, requests, sum(entries.values()))
    assert ids(data) == entries
    assert sum(reason["lines"] for reason in data["not_judged"].values()) == bad


class TestSeveralLogs:
    def test_of_several_kinds(self, replay: Replay) -> None:
        logs = [LOGS / name for name in ("squid.log", "urls.txt", "log.har", "vhost_combined.log")]
        data = replay(*logs).data
        assert [log["format"] for log in data["logs"]] == ["squid", "urls", "har", "vhost_combined"]
        assert [log["lines"] for log in data["logs"]] == [9, 7, 4, 5]
        assert data["lines"] == 25
        assert ids(data) == {"S-1": 1, "S-3": 4, "S-4": 4, "S-8": 1}
        assert data["not_judged"]["no URL"]["first"] == [{"log": 1, "line": 7}, {"log": 3, "line": 4}]
        assert data["clock"] == "log"

    def test_rotated_and_compressed(self, replay: Replay, tmp_path: Path) -> None:
        plain = (LOGS / "squid.log").read_bytes()
        (tmp_path / "access.log").write_bytes(plain)
        (tmp_path / "access.log.1").write_bytes(b"")
        (tmp_path / "access.log.2.gz").write_bytes(zlib.compress(plain, wbits=31))
        (tmp_path / "access.log.3.zst").write_bytes(zstd.compress(plain))
        data = replay(*sorted(tmp_path.glob("access.log*"))).data
        assert [log["lines"] for log in data["logs"]] == [9, 0, 9, 9]
        assert data["blocked"] == 9

    def test_one_that_is_not_there_is_told_before_anything_is_done(self, replay: Replay) -> None:
        assert replay(LOGS / "squid.log", "missing.log").problem == "missing.log: No such file or directory"


class TestTrouble:
    def test_a_log_cut_short_is_read_as_far_as_it_goes(self, replay: Replay, tmp_path: Path) -> None:
        lines = [squid(f"http://a{n * 7919 % 99991}.test/{n}") for n in range(20_000)]
        data = zlib.compress("\n".join([squid("http://exact.test/"), *lines]).encode(), wbits=31)
        path = tmp_path / "access.log.gz"
        path.write_bytes(data[: len(data) // 2])
        done = replay(path)
        found = done.data
        assert found["blocked"] == 1
        assert 1000 < found["requests"] < 20_000
        read = found["logs"][0]["lines"]
        assert done.err == f"urlward: {path}: cut short; read up to line {read}\n"
        assert found["lines"] == found["requests"] + 1 == read
        assert found["not_judged"] == {"cut short": {"lines": 1, "first": [{"log": 1, "line": read}]}}
        assert found["logs"][0]["trouble"] == "cut short"

    @pytest.mark.parametrize(
        ("content", "options", "problem"),
        [
            (b"<!DOCTYPE html>\n", [], "not a log that is known here"),
            (b"\0\1\2", [], "binary data"),
            (combined("/a").encode() + b"\n", [], "its lines name no host"),
            (b"http://a.test/\n", ["--time", "log"], "no times in such a log"),
            (b"a,b\n1,2\n", ["--column", "url"], "no column 'url'"),
        ],
    )
    def test_one_line(
        self, replay: Replay, tmp_path: Path, content: bytes, options: list[str], problem: str
    ) -> None:
        path = tmp_path / "log"
        path.write_bytes(content)
        told = replay(path, *options).problem
        assert told.startswith(f"{path}: ")
        assert problem in told

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--workers", "0"], "workers: 0 is not a number of processes from 1 to 256"),
            (["--workers", "257"], "workers: 257 is not a number of processes from 1 to 256"),
            (["--max-errors", "x"], "max-errors: 'x' is not a count"),
            (["-", "-"], "-: standard input can be read only once"),
            (["--list", "missing.txt"], "missing.txt: No such file"),
            (["--key", "missing.key"], "missing.key: No such file"),
        ],
    )
    def test_options(self, replay: Replay, options: list[str], problem: str) -> None:
        assert replay(LOGS / "squid.log", *options).problem.startswith(problem)

    def test_a_file_that_is_no_report_is_not_written_over(self, replay: Replay, tmp_path: Path) -> None:
        (tmp_path / "report.html").write_text("another's")
        problem = replay(LOGS / "squid.log", "-o", tmp_path).problem
        assert problem == f"{tmp_path}/report.html: there already, and no report: it is not overwritten"
        assert (tmp_path / "report.html").read_text() == "another's"

    def test_a_folder_that_cannot_be_written(self, replay: Replay, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        problem = replay(LOGS / "squid.log", "-o", tmp_path / "file" / "report").problem
        assert problem.startswith(f"{tmp_path}/file/report: the report cannot be written")


class TestOutput:
    def test_a_table_and_a_report(self, replay: Replay, tmp_path: Path) -> None:
        done = replay(LOGS / "squid.log", json=False)
        assert (done.code, done.err) == (0, "")
        assert "3 of 7 requests would be blocked" in done.out
        (folder,) = tmp_path.glob("urlward-replay-*")
        assert re.fullmatch(r"urlward-replay-\d{8}T\d{6}Z", folder.name)
        assert done.out.endswith(f"report: {folder.name}/report.html\n")
        assert json.loads((folder / "report.json").read_text())["data"]["blocked"] == 3
        assert "3 of 7 requests would be blocked" in (folder / "report.html").read_text()

    def test_json_makes_no_folder_that_is_not_named(self, replay: Replay, tmp_path: Path) -> None:
        assert replay(LOGS / "squid.log").data["blocked"] == 3
        assert list(tmp_path.iterdir()) == []
        data = replay(LOGS / "squid.log", "-o", tmp_path / "named").data
        written = json.loads((tmp_path / "named" / "report.json").read_text())["data"]
        assert {**written, "seconds": 0} == {**data, "seconds": 0}

    def test_has_no_url_no_host_and_no_client(self, replay: Replay, tmp_path: Path) -> None:
        log = tmp_path / "www.secret-site.test-access.log"
        log.write_text(
            "\n".join(
                [
                    squid("http://secret-listed.test/secret-page?secret=1", client="198.51.100.77"),
                    squid("http://secret-other.test/", client="2001:db8::77"),
                    squid("http://secret bad.test/", client="198.51.100.77"),
                    squid("http://secret%00bad.test/", client="198.51.100.77"),
                    "secret junk",
                    squid("secret-below.test:443", "CONNECT", client="secret-client.test"),
                ]
            )
        )
        source = tmp_path / "list.txt"
        source.write_text("secret-listed.test\nhttp://secret-below.test/secret-page\n")
        told = ""
        for as_json in (True, False):
            done = replay(log, "--list", source, "-o", tmp_path / "report", json=as_json)
            assert (done.code, done.err) == (0, "")
            told += done.out
        told += "".join(path.read_text() for path in (tmp_path / "report").iterdir())
        assert '"blocked": 1' in told
        assert not re.search(r"secret|198\.51|2001:db8|77\b.*client", told.replace(str(tmp_path), ""))

    def test_entries_are_named_up_to_a_number(self, replay: Replay) -> None:
        assert len(replay(LOGS / "squid.log", "--top", "2").data["entries"]) == 2
        assert replay(LOGS / "squid.log", "--top", "0").data["entries"] == []

    def test_without_a_list_the_sample(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [*COMMAND, "--json", LOGS / "squid.log"], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["blocked"] == 3
        assert done.stderr.startswith("no --list given: replaying against the sample, ")

    def test_an_artifact_and_its_key(self, replay: Replay, tmp_path: Path) -> None:
        (tmp_path / "list.ward").write_bytes(artifact(["unlisted.test id=A-1"]))
        key_file(tmp_path / "list.ward.key")
        data = replay(
            LOGS / "squid.log", "--list", tmp_path / "list.ward", "--key", tmp_path / "list.ward.key"
        ).data
        assert ids(data)["A-1"] == 2
        assert [one["name"] for one in data["lists"]] == ["sample", "compiled"]


def test_standard_input(tmp_path: Path) -> None:
    data = zlib.compress((LOGS / "squid.log").read_bytes(), wbits=31)
    command = [*COMMAND, "--json", "--list", SAMPLE, "-", LOGS / "urls.txt"]
    done = subprocess.run(command, input=data, capture_output=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert ids(found) == {"S-1": 1, "S-3": 3, "S-4": 2}
    assert [log["lines"] for log in found["logs"]] == [9, 7]


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    command = [*COMMAND, "--list", SAMPLE, "--workers", "3", "-"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        cwd=tmp_path,
    )
    assert process.stdin is not None

    # Enough for its head, and then it waits for more.
    process.stdin.write(f"{squid('http://exact.test/')}\n".encode() * 10_000)
    process.stdin.flush()
    wait_for(lambda: len(members(process.pid)) == 4, "its processes")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert members(process.pid) == []
    assert list(tmp_path.iterdir()) == []


def members(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    agent = "Mozilla/5.0 " + "(invented) " * 60
    lines = [
        combined(f"/{n % 1009}/page", f"h{n % 997}.test", f"2001:db8::{n % 5003:x}").replace(
            "Mozilla/5.0", agent
        )
        for n in range(10_000)
    ]
    piece = "".join(f"{line}\n" for line in lines).encode()
    rounds = 200_000_000 // len(piece)
    path = tmp_path / "access.log.gz"
    path.write_bytes(zlib.compress(piece, 1, wbits=31) * rounds)
    code = (
        # Linux counts what the process was before exec among its own ru_maxrss.
        "import re, resource, sys\n"
        "from urlward.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1],"
        " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", code, "lab", "replay", "--json", "--list", SAMPLE, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counts, memory = done.stdout.splitlines()
    assert json.loads(counts)["requests"] == len(lines) * rounds
    assert max(map(int, memory.split())) < 150_000  # KiB


def test_agrees_with_check_from_end_to_end(replay: Replay, tmp_path: Path) -> None:
    hosts = ("blocked.example", "unlisted.test", "files.example", "www.news.example")
    paths = ("", "about", "private/x", "a/../private/%78", "gallery/do-not-visit/", "2026/listed-story.html")
    urls = [f"http://{host}/{path}" for host in hosts for path in paths]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    found, _ = expected(sample(), urls)
    data = replay("urls.txt", "--workers", "2").data
    assert data["blocked"] == sum(n for (action, *_), n in found.items() if action == "block")
    assert data["allowed"] == sum(n for (action, *_), n in found.items() if action == "allow") > 0
