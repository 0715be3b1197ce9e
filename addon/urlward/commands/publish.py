"""``urlward publish`` and ``urlward rollout``."""

import argparse
import asyncio
import json
import logging
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
    from urlward.publish.desk import RolloutDesk
    from urlward.publish.place import ListPlace
    from urlward.publish.run import Publisher

LOOK = 1.0
"""Seconds between two signs of life."""

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
    for name, text in (
        ("rollback", "Have all nodes go back to the version before, and hold it there."),
        ("release", "Publish a list again that is held, to canaries first."),
        ("promote", "Offer to all what canaries have, or what a guard has held."),
    ):
        act = state_subcommand(of_rollout, name, _act, text)
        act.set_defaults(act=name)
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
    config = config.model_copy(update={"publish": config.publish.model_copy(update={"to": to})})
    return config, state_folder(args.state or config.state), open_place(to)


def _publish(args: argparse.Namespace) -> int:
    from urlward.process import keep_private
    from urlward.publish.run import Publisher

    keep_private()
    config, state, place = _read(args)
    publisher = Publisher(config, state, place)
    if args.once:
        well = asyncio.run(publisher.once(lambda line: print(line, flush=True)))
        return DONE if well else WRONG
    from urlward.logs import LineHandler, last_lines

    log = logging.getLogger("urlward")
    log.addHandler(LineHandler())
    log.addHandler(last_lines)
    log.setLevel(logging.INFO)
    asyncio.run(_serve(publisher, config, state))
    return DONE


async def _serve(publisher: "Publisher", config: Config, state: Path) -> None:
    """Publish until SIGTERM, with signs of life for the service manager."""
    from urlward.proxy import notify
    from urlward.service.process import run

    async def tell() -> None:
        notify.ready()
        said = ""
        while True:
            notify.withhold(publisher.hangs)
            if not publisher.hangs and said != publisher.words:
                said = publisher.words
                notify.status(said)
            notify.alive()
            await asyncio.sleep(LOOK)

    telling = asyncio.ensure_future(tell())
    try:
        await run(config, state, publisher=publisher)
    finally:
        telling.cancel()


def _status(args: argparse.Namespace) -> int:
    from urlward.publish.rollout import read_rollouts
    from urlward.publish.run import told

    desk = _desk(args)
    place = desk.place()
    found = read_rollouts(place)
    if args.json:
        print(json.dumps(desk.rows()["lists"], indent=1))
    for rollout in [] if args.json else found:
        print(f"{rollout.name}: {told(rollout)}")
        if rollout.waiting and rollout.is_tried:
            print(f"  waiting: {rollout.waiting}")
        for version in rollout.versions:
            print(f"  {version.serial}  {time_text(version.at)}  {counted(version.entries, 'entry')}")
    if not found and not args.json:
        print(f"{place}: nothing is published there")
    return WRONG if any(rollout.held is not None for rollout in found) else DONE


def _act(args: argparse.Namespace) -> int:
    why, serial = reason_of(args.why), getattr(args, "serial", None)
    print(_desk(args).act(args.act, args.name, why=why, who=caller(), serial=serial))
    return DONE


def _desk(args: argparse.Namespace) -> "RolloutDesk":
    from urlward.publish.desk import RolloutDesk

    return RolloutDesk(*_read(args))
