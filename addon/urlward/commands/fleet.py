"""``urlward fleet``."""

import argparse
import asyncio
import json
import time
from typing import TYPE_CHECKING

from urlward.commands.arguments import DONE, WRONG, Command, caller, state_subcommand, subcommand
from urlward.config import SYSTEM, Config, configured
from urlward.engine.errors import UrlwardError
from urlward.lines import columns
from urlward.options import given_number, given_path
from urlward.units import in_words

if TYPE_CHECKING:
    from urlward.fleet.connection import FleetConnection
    from urlward.fleet.nodes import FleetNode

WITHIN = 10.0
"""Seconds that Valkey has to answer, and nodes to put a list in force."""

_LOOK = 0.25
"""Seconds between two looks at the nodes."""

_COLUMNS = ("node", "state", "connections", "judged", "blocked", "load", "version", "lists")
_NUMBERS = ("connections", "judged", "blocked", "load")


def add_fleet_commands(command: Command) -> None:
    """Declare ``urlward fleet``; what it needs is imported when it runs."""
    fleet = command("fleet", None, "Several nodes as one.").add_subparsers(required=True, metavar="COMMAND")
    status = subcommand(
        fleet,
        "status",
        _status,
        "Exit code 0 where all nodes are up, 1 where one is not, or there is none, or Valkey is away.",
    )
    status.add_argument("--json", action="store_true", help="as a JSON object")
    status.add_argument("--config", type=given_path, metavar="FILE", help=f"TOML file ({SYSTEM})")

    rollback = state_subcommand(
        fleet, "rollback", _roll_back, "Have all nodes put an earlier list in force, and stay there."
    )
    rollback.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")
    rollback.add_argument("name", metavar="LIST", help="a feed of artifacts")
    rollback.add_argument(
        "serial",
        nargs="?",
        type=given_number,
        metavar="SERIAL",
        help="of the list (the one before that in force)",
    )


def _status(args: argparse.Namespace) -> int:
    path, config = configured(args.config)
    if config.fleet is None:
        raise UrlwardError(f"{path or 'no --config given'}: no [fleet]: this node is alone")
    from urlward.fleet.connection import AwayError
    from urlward.fleet.nodes import row_of

    nodes, why = [], ""
    try:
        nodes = nodes_now(config)
    except AwayError as e:
        why = str(e)
    ok = bool(nodes) and all(node.state == "up" for node in nodes)
    if args.json:
        print(
            json.dumps({"ok": ok, "away": why or None, "nodes": [row_of(node) for node in nodes]}, indent=1)
        )
    elif why:
        print(f"Valkey is away: {why}")
    else:
        print("\n".join(lines(nodes)))
    return DONE if ok else WRONG


def nodes_now(config: Config) -> "list[FleetNode]":
    """Ask Valkey for all nodes; there is a ``[fleet]``.

    Raises:
        AwayError: Valkey is away.
        KeyFileError: the key is.
    """
    from urlward.fleet.connection import FleetConnection, seal_of
    from urlward.fleet.nodes import look_at_nodes

    assert config.fleet is not None
    connection = FleetConnection(config.fleet, seal_of(config.fleet, config.key), who="status")
    return asyncio.run(look_at_nodes(connection, WITHIN))


def _roll_back(args: argparse.Namespace) -> int:
    """Roll a feed back here; the service of this node tells the others (`urlward.fleet.decisions`)."""
    from urlward.feeds.rollback import roll_back
    from urlward.fleet.connection import AwayError, FleetConnection, seal_of
    from urlward.policy.reasons import reason_of
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    if config.fleet is None:
        raise UrlwardError(
            f"{path or 'no --config given'}: no [fleet]: urlward feeds rollback is for one node"
        )
    feed = next((one for one in config.feed if one.name == args.name), None)
    if feed is None:
        raise UrlwardError(f"no feed is called {args.name!r}")
    connection = FleetConnection(config.fleet, seal_of(config.fleet, config.key), who="rollback")
    why, state = reason_of(args.why), state_folder(args.state or config.state)
    held = roll_back(feed, config, state, args.serial, why=why, who=caller(), now=time.time())
    try:
        nodes = asyncio.run(_until_at(connection, feed.name, held.serial, time.monotonic()))
    except AwayError as e:
        print(
            f"{feed.name}: serial {held.serial} is in force here; the others follow when Valkey is back: {e}"
        )
        return WRONG
    behind = [node.name for node in nodes if not _is_at(node, feed.name, held.serial)]
    for node in nodes:
        has = "in force" if node.name not in behind else f"not in force, {node.state}"
        print(f"node {node.name}: serial {held.serial} {has}")
    print(f"{feed.name}: held at serial {held.serial}, before it was {held.before}, until it is released")
    return WRONG if behind else DONE


def _is_at(node: "FleetNode", name: str, serial: int) -> bool:
    return node.state != "away" and node.lists.get(name) == serial


async def _until_at(connection: "FleetConnection", name: str, serial: int, begun: float) -> "list[FleetNode]":
    """All nodes, once each that is not away has said since that it has a list in force, or at the end."""
    from urlward.fleet.nodes import look_at_nodes

    while True:
        nodes = await look_at_nodes(connection, WITHIN)
        passed = time.monotonic() - begun
        # What one has said before may be of the list before the wrong one.
        if passed >= WITHIN or all(
            node.silent < passed and _is_at(node, name, serial) for node in nodes if node.state != "away"
        ):
            return nodes
        await asyncio.sleep(_LOOK)


def lines(nodes: "list[FleetNode]") -> list[str]:
    """Format nodes, one a line, and what is wrong beneath."""
    rows = [_row(node) for node in nodes]
    table = columns([_COLUMNS, *rows], _NUMBERS)
    wrong = [] if nodes else ["no node has said anything"]
    wrong += [f"node {node.name}: alarm: {alarm}" for node in nodes for alarm in node.alarms]
    wrong += [
        f"node {node.name}: two nodes have this name: give each its own (fleet.node)"
        for node in nodes
        if node.twin
    ]
    wrong += [f"node {node.name}: list {one} is behind" for node in nodes for one in node.behind]
    return [*table, *([""] if wrong else []), *wrong]


def _row(node: "FleetNode") -> tuple[str, ...]:
    state = f"away for {in_words(node.silent)}" if node.state == "away" else node.state
    lists = ", ".join(f"{name} {serial}" for name, serial in sorted(node.lists.items()))
    counts = (node.connections, node.judged, node.blocked)
    return (node.name, state, *map(str, counts), f"{node.load:.2f}", node.version, lists or "-")
