"""No line of the log names a client by more than the privacy of the records leaves of it."""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

import urlward
from gateway.dns_support import Kernel, keep
from lists.support import SECRET
from proxy.driver import NOW, make_context
from rows import each_row
from urlward.config import GatewayTable, RecordsTable
from urlward.dns.judge import Faults, Judge
from urlward.dns.policy import Asker, DnsPolicy
from urlward.engine.verdict import Verdict
from urlward.proxy.addon import Urlward
from urlward.proxy.guard import DecisionLog
from urlward.proxy.probing import Probe
from urlward.proxy.runner import Messages
from urlward.records.metrics import Metrics
from urlward.records.worker import Hit, Recording

pytestmark = pytest.mark.usefixtures("compiles_here")

VERDICT = Verdict("block", "page", "E-1", "phishing", "feed")
CLIENTS = {"198.51.100.77": "198.51.100.0/24", "2001:db8:1:2:3::77": "2001:db8:1::/48"}
"""Each with what is left of it where it is shortened."""

LINES = {"proxy/guard.py": 3, "proxy/addon.py": 1, "dns/policy.py": 1}
"""Lines of the log with a client in them, by module. Whoever adds one has it written below too."""

type Level = Literal["full", "short", "digest", "counts"]


def written(tmp_path: Path, address: str, recording: Recording | None) -> None:
    """Have every line that names a client be written once, and one of mitmproxy's."""
    client = make_context().client
    client.peername = (address, 40_213)
    log = DecisionLog(Metrics(NOW), lambda: NOW, recording)
    log.hit(Hit(VERDICT, address, 40_213, "http", "match", "AAAA-BBBB-CCCC"))
    log.failure(RuntimeError(address), client, "cut")
    log.untrusted("certificate has expired", client)
    addon = Urlward()
    addon.recording = recording
    for each in {address, re.sub(r"3::77$", ":/64", address)}:
        addon._tell_of_probe(Probe(each, 51, 600, slowed=False))
    keeper = keep(tmp_path, "blocked.example id=D-1\n")
    policy = DnsPolicy(
        GatewayTable(), Kernel(), Judge(lambda: keeper.matcher, Faults()), lambda: keeper.matcher
    )
    if recording is not None:
        policy.record, policy.logs, policy.named = recording.hit_by_dns, recording.logs, recording.named
    policy._log(("blocked.example",), (Asker(address, 40_213),))
    record = logging.makeLogRecord(
        {"name": "mitmproxy.proxy.server", "levelno": logging.ERROR, "client": client.peername}
    )
    record.msg = f"{address}: mitmproxy has crashed!"
    messages = Messages()
    messages.startup_errors = None
    messages.emit(record)


@each_row("address", CLIENTS)
@each_row("level", ["full", "short", "digest", "counts"])
def test_each_line_names_what_is_kept(
    level: Level,
    address: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    recording = Recording(RecordsTable(privacy=level, log=level == "full"), tmp_path / "state", SECRET, "0")
    alarms: list[str] = []
    recording.alarm = lambda _, text: alarms.append(text)  # type: ignore[method-assign]
    written(tmp_path, address, recording)
    lines = [line for line in caplog.messages if "client=" in line]
    text = "\n".join([*caplog.messages, *alarms, *capsys.readouterr()])
    named = {line.partition("client=")[2].split(" ")[0].removesuffix(":") for line in lines}
    if level == "full":
        assert len(lines) == 5 + (":" in address)
        assert f"[{address}]:40213" in named or f"{address}:40213" in named
        return
    assert len(lines) == 3 + (":" in address), "hits are in the stores"
    assert address not in text
    assert "40213" not in text
    assert address.rpartition(":")[0] not in text or "." in address
    if level == "short":
        assert named == {CLIENTS[address]}
    elif level == "counts":
        assert named == {"-"}
    else:
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in named)
        assert recording.named(address) in named


@pytest.mark.parametrize("address", CLIENTS)
def test_without_records_the_log_is_all_that_there_is(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    written(tmp_path, address, None)
    assert sum(address in line for line in caplog.messages if "client=" in line) == 5


def test_no_other_line_has_a_client() -> None:
    package = Path(urlward.__file__).parent
    found = Counter(
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for _ in re.findall(r"\bclient=%s|\bpeer=%s|\bfrom %s:%", path.read_text())
        if "lab" not in path.parts
    )
    assert found == LINES
