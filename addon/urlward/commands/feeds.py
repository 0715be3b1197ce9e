"""``urlward feeds``."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from urlward.commands.arguments import DONE, WRONG, Command, caller, state_subcommand
from urlward.config import Config, FeedTable, configured
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.policy.reasons import reason_of
from urlward.units import counted


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
        "serial", nargs="?", type=int, metavar="SERIAL", help="of the list (the one before that in force)"
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
