"""``urlward feeds``, ``urlward publish`` and ``urlward rollout``."""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.commands.arguments import DONE, WRONG, Command, add_state_arguments, caller, state_subcommand
from urlward.config import Config, FeedTable, configured
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.options import given_number, given_text
from urlward.policy.reasons import reason_of
from urlward.units import counted

if TYPE_CHECKING:
    from urlward.publish.desk import RolloutDesk
    from urlward.publish.place import ListPlace
    from urlward.publish.run import Publisher


def add_feed_commands(command: Command) -> None:
    """Declare ``urlward feeds``; what it needs is imported when it runs."""
    feeds = command("feeds", None, "Lists that arrive by themselves.")
    of_feeds = feeds.add_subparsers(required=True, metavar="COMMAND")

    status = state_subcommand(
        of_feeds, "status", _status, "Exit code 0 where all feeds are well, 1 where one is not."
    )
    status.add_argument("--json", action="store_true", help="as a JSON array")
    status.add_argument("names", nargs="*", metavar="NAME", help="of the feeds (all)")

    refresh = state_subcommand(
        of_feeds, "refresh", _refresh, "Fetch now; a filter that runs takes what is new by itself."
    )
    refresh.add_argument("--wait", action="store_true", help="for feeds that are being refreshed already")
    refresh.add_argument("names", nargs="*", metavar="NAME", help="of the feeds (all)")

    accept = state_subcommand(
        of_feeds, "accept", _accept, "Let a list through once that has shrunk or grown too much."
    )
    accept.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")
    accept.add_argument("name", metavar="NAME", help="of the feed")

    rollback = state_subcommand(
        of_feeds,
        "rollback",
        _rollback,
        "Put an earlier list in force, and fetch nothing until it is released.",
    )
    rollback.add_argument("--why", metavar="TEXT", help="for the record (audit.jsonl)")
    rollback.add_argument("--list", action="store_true", help="show the earlier lists that are kept")
    rollback.add_argument("name", metavar="NAME", help="of the feed")
    rollback.add_argument(
        "serial",
        nargs="?",
        type=given_number,
        metavar="SERIAL",
        help="of the list (the one before that in force)",
    )

    release = state_subcommand(of_feeds, "release", _release, "Fetch a feed again that was rolled back.")
    release.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")
    release.add_argument("name", metavar="NAME", help="of the feed")


def _read(args: argparse.Namespace) -> tuple[Config, Path]:
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    if not config.feed:
        raise UrlwardError(f"{path or 'no --config given'}: no [[feed]] in it")
    return config, state_folder(args.state or config.state)


def _chosen(config: Config, names: Sequence[str]) -> list[FeedTable]:
    by_name = {feed.name: feed for feed in config.feed}
    for name in names:
        if name not in by_name:
            raise UrlwardError(f"no feed is called {name!r}; there are {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)] or list(config.feed)


def _status(args: argparse.Namespace) -> int:
    from urlward.feeds.status import status, table
    from urlward.state.folder import found_folder

    config, state = _read(args)
    chosen, now = _chosen(config, args.names), time.time()
    found_folder(state)
    rows = [status(feed, state, now) for feed in chosen]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print("\n".join(table(rows)))
    return DONE if all(row["state"] in ("ok", "paused", "held") for row in rows) else WRONG


def _refresh(args: argparse.Namespace) -> int:
    config, state = _read(args)
    return max([_refresh_one(feed, config, state, wait=args.wait) for feed in _chosen(config, args.names)])


def _refresh_one(feed: FeedTable, config: Config, state: Path, *, wait: bool) -> int:
    from urlward.feeds.feed import Feed
    from urlward.feeds.store import BusyError

    try:
        outcome = Feed(feed, config, state).refresh(wait=wait)
    except BusyError:
        print(f"{feed.name}: being refreshed already", flush=True)
        return DONE
    failed = outcome.state == "failed"
    print(f"{feed.name}: {outcome.text}", file=sys.stderr if failed else sys.stdout, flush=True)
    return WRONG if failed else DONE


def _accept(args: argparse.Namespace) -> int:
    from urlward.feeds.status import accept

    why = reason_of(args.why)
    config, state = _read(args)
    (feed,) = _chosen(config, [args.name])
    refused = accept(feed, state, why=why, who=caller(), now=time.time())
    if refused is None:
        print(f"{feed.name}: nothing was refused; the next list that is, for its size, is let through once")
        return DONE
    print(f"{feed.name}: the list of {counted(refused.entries, 'entry')} is let through once", flush=True)
    return _refresh_one(feed, config, state, wait=True)


def _rollback(args: argparse.Namespace) -> int:
    from urlward.feeds.rollback import roll_back
    from urlward.feeds.store import FeedStore

    if args.list == (args.why is not None) or (args.list and args.serial is not None):
        raise UrlwardError("give --why TEXT, and a serial if it is not the list before; or --list")
    config, state = _read(args)
    (feed,) = _chosen(config, [args.name])
    if args.list:
        for version in FeedStore(state, feed.name).versions():
            print(f"{version.serial}  made {time_text(version.created)}")
        return DONE
    why = reason_of(args.why)
    held = roll_back(feed, config, state, args.serial, why=why, who=caller(), now=time.time())
    print(
        f"{feed.name}: serial {held.serial} in force, before it was {held.before}; held until it is released"
    )
    return DONE


def _release(args: argparse.Namespace) -> int:
    from urlward.feeds.rollback import release

    why = reason_of(args.why)
    config, state = _read(args)
    (feed,) = _chosen(config, [args.name])
    held = release(feed, state, why=why, who=caller(), now=time.time())
    print(f"{feed.name}: no longer held at serial {held.serial}", flush=True)
    return _refresh_one(feed, config, state, wait=True)


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
    status = state_subcommand(of_rollout, "status", _rollouts, "Exit code 1 where a list is held.")
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
            act.add_argument("serial", nargs="?", type=given_number, metavar="SERIAL", help="of the version")
    for each in of_rollout.choices.values():
        each.add_argument("--to", type=given_text, metavar="DESTINATION", help=_TO)


def _publisher_config(args: argparse.Namespace) -> tuple[Config, Path, "ListPlace"]:
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
    config, state, place = _publisher_config(args)
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


def _rollouts(args: argparse.Namespace) -> int:
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

    return RolloutDesk(*_publisher_config(args))
