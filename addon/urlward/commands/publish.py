"""``urlward publish`` and ``urlward rollout``."""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.commands.arguments import DONE, WRONG, Command, add_state_arguments, caller, state_subcommand
from urlward.config import Config, configured
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.options import given_text
from urlward.policy.reasons import reason_of
from urlward.units import counted

if TYPE_CHECKING:
    from urlward.publish.place import ListPlace
    from urlward.publish.rollout import Lists

_TO = "folder, or s3://BUCKET/PREFIX (publish.to)"


def add_publish_commands(command: Command) -> None:
    """Declare ``urlward publish`` and ``urlward rollout``; what they need is imported when they run."""
    publish = command("publish", _publish, "Publish feeds for other nodes, and go on as they change.")
    add_state_arguments(publish)
    publish.add_argument("--once", action="store_true", help="refresh and publish each feed once, and end")
    publish.add_argument("to", nargs="?", type=given_text, metavar="DESTINATION", help=_TO)

    rollout = command("rollout", None, "Which version of a published list is offered to whom.")
    of_rollout = rollout.add_subparsers(required=True, metavar="COMMAND")
    status = state_subcommand(of_rollout, "status", _status, "Exit code 1 where a list is held.")
    status.add_argument("--json", action="store_true", help="as a JSON array")
    for name, function, text in (
        ("rollback", _rollback, "Have all nodes go back to the version before, and hold it there."),
        ("release", _release, "Publish a list again that is held, to canaries first."),
        ("promote", _promote, "Offer to all what canaries have, or what a guard has held."),
    ):
        act = state_subcommand(of_rollout, name, function, text)
        act.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")
        act.add_argument("name", metavar="LIST", help="name of the list")
        if name == "rollback":
            act.add_argument("serial", nargs="?", type=int, metavar="SERIAL", help="of the version")
    for each in of_rollout.choices.values():
        each.add_argument("--to", type=given_text, metavar="DESTINATION", help=_TO)


def _read(args: argparse.Namespace) -> tuple[Config, Path, "ListPlace"]:
    from urlward.publish.place import open_place
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    shown = path or "no --config given"
    if config.publish is None:
        raise UrlwardError(f"{shown}: no [publish] in it")
    if not config.feed:
        raise UrlwardError(f"{shown}: no [[feed]] in it")
    to = args.to or config.publish.to
    if to is None:
        raise UrlwardError(f"{shown}: no destination: give one, or say publish.to")
    return config, state_folder(args.state or config.state), open_place(to)


def _publish(args: argparse.Namespace) -> int:
    from urlward.publish.run import Publisher

    config, state, place = _read(args)
    publisher = Publisher(config, state, place)
    if args.once:
        well = asyncio.run(publisher.once(lambda line: print(line, flush=True)))
        return DONE if well else WRONG
    log = logging.getLogger("urlward")
    log.addHandler(_Lines())
    log.setLevel(logging.INFO)

    async def run() -> None:
        task = asyncio.ensure_future(publisher.run())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, publisher.refresh_all)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    asyncio.run(run())
    return DONE


class _Lines(logging.Handler):
    """Log handler with one line a message, to standard error from WARNING on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(record.getMessage().split("\n", 1)[0], file=stream, flush=True)


def _status(args: argparse.Namespace) -> int:
    import msgspec

    from urlward.publish.rollout import read_rollouts
    from urlward.publish.run import told

    _, _, place = _read(args)
    found = read_rollouts(place)
    if args.json:
        print(json.dumps(msgspec.to_builtins(found), indent=1))
    for rollout in [] if args.json else found:
        print(f"{rollout.name}: {told(rollout)}")
        if rollout.waiting and rollout.is_tried:
            print(f"  waiting: {rollout.waiting}")
        for version in rollout.versions:
            print(f"  {version.serial}  {time_text(version.at)}  {counted(version.entries, 'entry')}")
    if not found and not args.json:
        print(f"{place}: nothing is published there")
    return WRONG if any(rollout.held is not None for rollout in found) else DONE


def _rollback(args: argparse.Namespace) -> int:
    lists, why = _acting(args, "rolled-back")
    version = lists.roll_back(args.name, why=why, who=caller(), serial=args.serial)
    print(f"{args.name}: serial {version.serial} for all, held until it is released")
    return DONE


def _release(args: argparse.Namespace) -> int:
    lists, _ = _acting(args, "released")
    lists.release(args.name)
    print(f"{args.name}: no longer held; whoever publishes offers the feed's list again")
    return DONE


def _promote(args: argparse.Namespace) -> int:
    lists, _ = _acting(args, "promoted")
    version = lists.promote(args.name)
    print(f"{args.name}: serial {version.serial} for all")
    return DONE


def _acting(args: argparse.Namespace, what: str) -> "tuple[Lists, str]":
    """The lists that are published, and why something is done with one; the audit log has it before."""
    from urlward.publish.rollout import Lists
    from urlward.state.audit import append
    from urlward.state.folder import made_folder

    why, (config, state, place) = reason_of(args.why), _read(args)
    lists = Lists(place, config)
    append(made_folder(state), caller(), what, time.time(), feed=args.name, why=why, published=str(place))
    return lists, why
