"""``urlward fleet``."""

import argparse
import asyncio
import json
from typing import TYPE_CHECKING

from urlward.commands.arguments import DONE, WRONG, Command, subcommand
from urlward.config import SYSTEM, configured
from urlward.engine.errors import UrlwardError
from urlward.lines import columns
from urlward.options import given_path
from urlward.units import in_words

if TYPE_CHECKING:
    from urlward.fleet.nodes import Node

WITHIN = 10.0
"""Seconds that Valkey has to answer."""

_COLUMNS = ("node", "state", "connections", "judged", "blocked", "load", "version", "lists")
_NUMBERS = ("connections", "judged", "blocked", "load")


def add_fleet_commands(command: Command) -> None:
    """Declare ``urlward fleet``; what it needs is imported when it runs."""
    fleet = command("fleet", None, "Several nodes as one.").add_subparsers(required=True, metavar="COMMAND")
    status = subcommand(
        fleet, "status", _status, "Exit code 0 where all nodes are up, 1 where one is not, or Valkey is away."
    )
    status.add_argument("--json", action="store_true", help="as a JSON object")
    status.add_argument("--config", type=given_path, metavar="FILE", help=f"TOML file ({SYSTEM})")


def _status(args: argparse.Namespace) -> int:
    path, config = configured(args.config)
    if config.fleet is None:
        raise UrlwardError(f"{path or 'no --config given'}: no [fleet]: this node is alone")
    from urlward.fleet.connection import AwayError, Connection, seal_of
    from urlward.fleet.nodes import look_at_nodes, row_of

    connection = Connection(config.fleet, seal_of(config.fleet, config.key), who="status")
    nodes, why = [], ""
    try:
        nodes = asyncio.run(look_at_nodes(connection, WITHIN))
    except AwayError as e:
        why = str(e)
    ok = not why and all(node.state == "up" for node in nodes)
    if args.json:
        print(
            json.dumps({"ok": ok, "away": why or None, "nodes": [row_of(node) for node in nodes]}, indent=1)
        )
    elif why:
        print(f"Valkey is away: {why}")
    else:
        print("\n".join(lines(nodes)))
    return DONE if ok else WRONG


def lines(nodes: "list[Node]") -> list[str]:
    """Format nodes, one a line, and what is wrong beneath."""
    rows = [_row(node) for node in nodes]
    table = columns([_COLUMNS, *rows], [n for n, name in enumerate(_COLUMNS) if name in _NUMBERS])
    wrong = [f"node {node.name}: alarm: {alarm}" for node in nodes for alarm in node.alarms]
    wrong += [f"node {node.name}: list {one} is behind" for node in nodes for one in node.behind]
    return [*table, *([""] if wrong else []), *wrong]


def _row(node: "Node") -> tuple[str, ...]:
    state = f"away for {in_words(node.silent)}" if node.state == "away" else node.state
    lists = ", ".join(f"{name} {serial}" for name, serial in sorted(node.lists.items()))
    counts = (node.connections, node.judged, node.blocked)
    return (node.name, state, *map(str, counts), f"{node.load:.2f}", node.version, lists or "-")
