"""Nodes: machines of a shared database, by a name that may change and an identity that does not.

The identity is random and made once, in ``node.json`` in the state folder. In a database that several nodes
share it tells two of the same name apart, and one that was given another name is still the one it was.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urlward.state.folder import StateError, locked, made_folder, read_kept, write_kept

FILE = "node.json"

_SIZE = 16
_DAMAGED = "this node gets a new identity, with which `urlward records adopt` takes its name"


@dataclass(frozen=True, slots=True)
class Node:
    """Node: name and identity of a machine.

    Attributes:
        name: as the configuration has it now.
        identity: of its state folder, in hexadecimal digits.
    """

    name: str
    identity: str


def node_of(name: str, state: Path) -> Node:
    """Identify this node; its identity is made where it has none.

    Args:
        name: as the configuration has it.
        state: the state folder.

    Raises:
        StateError: the folder cannot be used.
    """
    if found := _read(state):
        return Node(name, found)
    with locked(made_folder(state)):
        if not (identity := _read(state)):
            identity = secrets.token_hex(_SIZE)
            write_kept(state / FILE, 1, "node", [{"identity": identity}])
    return Node(name, identity)


def _read(state: Path) -> str:
    found = read_kept(state / FILE, 1, "node", _identity, StateError, _DAMAGED)
    return found[0] if found else ""


def _identity(stored: dict[str, Any]) -> str:
    if len(bytes.fromhex(stored["identity"])) != _SIZE:
        raise ValueError("not an identity")
    return str(stored["identity"])
