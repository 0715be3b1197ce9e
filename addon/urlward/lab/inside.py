"""The lab's own process: number 1 of its namespaces, or a run in a lab that is up.

It is told what to do by an `Order` in JSON, makes the network, runs, and writes the report to the folder
that it was given, which is outside of all that vanishes with it.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from urlward.engine.errors import UrlwardError
from urlward.gateway.system import has_ipv6
from urlward.lab.isolation import WORK, copy_out, furnish
from urlward.lab.run import Progress, run_scenario
from urlward.lab.scenario import Loaded, load_scenario
from urlward.lab.topology import RESOLVER, make_network
from urlward.lab.world import World

HELD, FAILED, ERROR, INTERRUPTED = 0, 1, 2, 130
READY = "ready"
_CONTROL = WORK / "control"


@dataclass(frozen=True, slots=True)
class Order:
    """Order to a lab process.

    Attributes:
        do: ``run`` a scenario and end; ``join``: run it in a lab that is up; ``hold``: stay up.
        scenario: its name or file.
        report, keep: folders for the report and for everything else, absolute; none where empty.
        seconds: of each measurement, in place of the scenario's own.
    """

    do: Literal["run", "join", "hold"]
    scenario: str
    report: str = ""
    keep: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def main(arguments: Sequence[str]) -> int:
    """Carry out an order; returns the exit code."""
    order = Order(**json.loads(arguments[0]))
    signal.signal(signal.SIGTERM, _end)
    try:
        loaded = load_scenario(order.scenario)
        ipv6 = has_ipv6()
        if order.do != "join":
            furnish([RESOLVER.host4, *([RESOLVER.host6] if ipv6 else [])])
            make_network(ipv6)
        if order.do == "hold":
            return _hold(loaded, ipv6)
        if order.do == "join":
            with _paused():
                return _run(order, loaded, ipv6)
        return _run(order, loaded, ipv6)
    except UrlwardError as e:
        print(f"urlward: {e}", file=sys.stderr, flush=True)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(order: Order, loaded: Loaded, ipv6: bool) -> int:
    from urlward.lab.summary import summarise
    from urlward.report.document import write_report

    folder = WORK if order.do == "run" else WORK / f"run-{time.time_ns()}"
    folder.mkdir(exist_ok=True)
    try:
        with Progress(loaded.name) as progress:
            try:
                ran = run_scenario(loaded, ipv6, progress, folder, order.seconds, last=order.do == "run")
            finally:
                if order.keep:
                    copy_out(folder / "run", Path(order.keep))
        page = write_report(Path(order.report), summarise(ran))
        progress.end(ran.good, ran.outcomes, ran.seconds, page)
        return HELD if ran.good else FAILED
    finally:
        if order.do == "join":
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _paused() -> Iterator[None]:
    """Context in which a running lab keeps its own services still."""
    with socket.socket(socket.AF_UNIX) as holder:
        try:
            holder.connect(str(_CONTROL))
            answer = holder.recv(1)
        except OSError as e:
            raise UrlwardError(f"lab: does not answer: {e.strerror}") from e
        if answer != b"+":
            raise UrlwardError("lab: another run is under way in it")
        yield
        # It is back as it was when it hangs up.
        holder.shutdown(socket.SHUT_WR)
        holder.recv(1)


def _hold(loaded: Loaded, ipv6: bool) -> int:
    """Keep the services up; whoever connects to the control socket uses the network exclusively."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(INTERRUPTED))
    with socket.socket(socket.AF_UNIX) as control, ExitStack() as guests:
        control.bind(str(_CONTROL))
        control.listen(8)
        untold = True
        while True:
            with World(loaded, ipv6, lambda _: None, WORK / "up", last=False):
                guests.close()
                if untold:
                    print(READY, flush=True)
                    _let_go()
                untold = False
                guest = guests.enter_context(control.accept()[0])
            _serve(control, guest)
            shutil.rmtree(WORK / "up", ignore_errors=True)


def _serve(control: socket.socket, guest: socket.socket) -> None:
    """Give one guest exclusive use until it goes; others are turned away."""
    guest.sendall(b"+")
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(guest, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if guest in ready:
                return
            with suppress(OSError):
                control.accept()[0].close()


def _let_go() -> None:
    """Detach from the process that started this; nothing is printed any more."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # All that still runs is in namespaces that end with this process.
    os._exit(code)
