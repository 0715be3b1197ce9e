"""``urlward lab``: the command line of the pilot lab; one function a subcommand.

Exit codes of ``lab run``: 0 all expectations hold, 1 not all do, 2 an error.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from urlward.commands.arguments import Command
from urlward.lab.errors import LabError

type Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Declares a subcommand by its name, its function, which returns the exit code, and its help."""

OK = 0
_CODES = (OK, 1, 2, 130)
_END_WITHIN = 10.0
_DEFAULT = "lab"
SHIPPED = ("smoke", "evasion", "churn", "failure", "failopen", "load", "monitor", "source")


def add_lab_commands(command: Command) -> Add:
    """Declare ``urlward lab``; what it needs is imported when it runs. Returns what declares more
    subcommands."""
    lab = command("lab", None, "A whole network on one machine, and what a list would have blocked.")
    commands = lab.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, function: Callable[[argparse.Namespace], int], help_text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        sub.set_defaults(command=function)
        return sub

    for declare in (add_run, add_up, add_shell, add_down):
        declare(add)
    return add


def add_run(add: Add) -> None:
    """Declare ``lab run SCENARIO``."""
    parser = add("run", _run, "Run a scenario in a network of its own, and write a report.")
    parser.add_argument("scenario", metavar="SCENARIO", help=f"{', '.join(SHIPPED)}, or a file")
    parser.add_argument(
        "-o",
        "--output",
        "--report",
        dest="report",
        type=Path,
        metavar="FOLDER",
        help="for report.html and report.json (lab-report/SCENARIO)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="copy logs and configurations there; a new one"
    )
    parser.add_argument("--in", dest="running", metavar="NAME", help="in a lab that is up")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="of each measurement, in place of the scenario's own"
    )


def add_up(add: Add) -> None:
    """Declare ``lab up``."""
    parser = add("up", _up, "Start a lab that stays up.")
    parser.add_argument(
        "scenario", nargs="?", default="smoke", metavar="SCENARIO", help="its hosts and list (smoke)"
    )
    parser.add_argument("--name", default=_DEFAULT, help=f"of the lab ({_DEFAULT})")


def add_shell(add: Add) -> None:
    """Declare ``lab shell``."""
    parser = add("shell", _shell, "Open a shell, or run a command, on a client of a lab that is up.")
    parser.add_argument("--name", default=_DEFAULT, help=f"of the lab ({_DEFAULT})")
    parser.add_argument(
        "--machine",
        default="client",
        choices=["client", "client6", "neighbour", "gateway", "resolver", "origin"],
        help="that it is on (client)",
    )
    parser.add_argument("words", nargs="*", metavar="COMMAND", help="in place of a shell; behind --")


def add_down(add: Add) -> None:
    """Declare ``lab down``."""
    parser = add("down", _down, "End a lab that is up.")
    parser.add_argument("--name", default=_DEFAULT, help=f"of the lab ({_DEFAULT})")


def _run(args: argparse.Namespace) -> int:
    from urlward.lab.inside import Order
    from urlward.lab.isolation import isolated, joining, make_mount_points
    from urlward.lab.needs import check_needs
    from urlward.lab.scenario import load_scenario
    from urlward.lab.state import the_running
    from urlward.report.document import check_folder

    if args.seconds is not None and not args.seconds > 0:
        raise LabError(f"--seconds: {args.seconds:g} is not more than 0")
    loaded = load_scenario(args.scenario)
    report = (args.report or Path("lab-report") / loaded.name).absolute()
    check_folder(report)
    _check_keep(args.keep)
    check_needs()
    make_mount_points()
    order = Order(
        "join" if args.running else "run",
        _path(args.scenario),
        str(report),
        str(args.keep.absolute()) if args.keep else "",
        args.seconds,
    )
    command = joining(the_running(args.running).pid, str(order)) if args.running else isolated(str(order))
    return _wait(subprocess.Popen(command))  # noqa: S603 - our own program


def _check_keep(folder: Path | None) -> None:
    """Refuse a folder with files, whose names a lab's could be: ``urlward.toml`` is one.

    Raises:
        LabError: it is one.
    """
    with suppress(OSError):  # copying will tell
        if folder is not None and any(folder.iterdir()):
            raise LabError(f"--keep: {folder} is not empty: name a new folder")


def _path(scenario: str) -> str:
    """Absolute path of a scenario's file; a name that is no file stays as it is."""
    path = Path(scenario)
    return str(path.absolute()) if path.exists() else scenario


def _wait(process: "subprocess.Popen[bytes]") -> int:
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The lab has had the same signal from the terminal; it needs no longer than this.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_WITHIN)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code not in _CODES:
        raise LabError(f"lab: its process has ended with {code}")
    return code


def _up(args: argparse.Namespace) -> int:
    from urlward.lab.inside import READY, Order
    from urlward.lab.isolation import child_of, detached, make_mount_points, started_at
    from urlward.lab.needs import check_needs
    from urlward.lab.scenario import load_scenario
    from urlward.lab.state import Running, find_running, path_of, remember

    loaded = load_scenario(args.scenario)
    check_needs()
    make_mount_points()
    path_of(args.name)
    if find_running(args.name):
        raise LabError(f"lab {args.name}: is up already; try: urlward lab down --name {args.name}")
    process = subprocess.Popen(  # noqa: S603 - our own program
        detached(str(Order("hold", _path(args.scenario)))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # What it keeps open must not be this command's own: a shell would wait for that to be closed.
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == READY:
                break
            print(line, end="", file=sys.stderr)
        else:
            return process.wait()
        pid = child_of(process.pid)
        start = started_at(pid) if pid else None
        if pid is None or start is None:
            raise LabError(f"lab {args.name}: has ended at once")
        remember(Running(args.name, pid, start, loaded.name))
    except BaseException:
        process.kill()
        process.wait()
        raise
    name = "" if args.name == _DEFAULT else f" --name {args.name}"
    print(f"lab {args.name}: up, as scenario {loaded.name} has it (process {pid})")
    print(f"  urlward lab shell{name} -- curl http://…   on the client; without a command, a shell")
    print(f"  urlward lab run SCENARIO --in {args.name}")
    print(f"  urlward lab down{name}")
    return OK


def _shell(args: argparse.Namespace) -> int:
    from urlward.lab.isolation import entering, environment
    from urlward.lab.state import the_running

    running = the_running(args.name)
    words = args.words or [os.environ.get("SHELL") or "/bin/sh"]
    prompt = {"PS1": f"{args.machine}@{args.name}$ "}
    command = [*entering(running.pid, args.machine), "--", *words]
    return subprocess.run(command, env={**environment(), **prompt}, check=False).returncode  # noqa: S603 - the user's own


def _down(args: argparse.Namespace) -> int:
    from urlward.lab.state import end, the_running

    start = time.monotonic()
    end(the_running(args.name))
    print(f"lab {args.name}: down ({time.monotonic() - start:.1f} s)")
    return OK
