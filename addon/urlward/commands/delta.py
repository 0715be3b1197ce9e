"""``urlward delta`` and ``urlward patch``."""

import argparse
import time
from pathlib import Path

from urlward.commands.arguments import DONE, Command, spare
from urlward.engine.artifact import Artifact, check_key, parse
from urlward.engine.delta import DeltaError, apply_delta, changes, make_delta
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.lists.build import find_key, told, write_in_kind
from urlward.lists.source import read_artifact
from urlward.options import given_path
from urlward.progress import progress_bar
from urlward.state.keys import key_beside
from urlward.units import counted


def add_delta_commands(command: Command) -> None:
    """Declare ``urlward delta`` and ``urlward patch``."""
    delta = command("delta", _delta, "Write what makes one artifact of another.")
    delta.add_argument("old", type=given_path, metavar="OLD")
    delta.add_argument("new", type=given_path, metavar="NEW")
    delta.add_argument(
        "-o",
        "--output",
        required=True,
        type=given_path,
        metavar="FILE",
        help="in a folder it is named as feeds look for it: NEW.SERIAL.delta, the serial being OLD's",
    )
    delta.add_argument(
        "--key", type=given_path, metavar="FILE", help="key of both; NEW.key beside it where not given"
    )

    patch = command("patch", _patch, "Make the new artifact of the old one and a delta.")
    patch.add_argument("old", type=given_path, metavar="OLD")
    patch.add_argument("delta", type=given_path, metavar="DELTA")
    patch.add_argument("-o", "--output", required=True, type=given_path, metavar="NEW")
    patch.add_argument(
        "--key", type=given_path, metavar="FILE", help="key of both; OLD.key beside it where not given"
    )


def _delta(args: argparse.Namespace) -> int:
    start = time.monotonic()
    key_file = args.key or key_beside(args.new)
    key = find_key(args.key, (args.new,))
    old, new = (_artifact(path, key) for path in (args.old, args.new))
    serial, last = new.header.serial, old.header.serial
    if serial <= last:
        raise UrlwardError(
            f"{args.new}: its serial {serial} is not above {last}, that of {args.old}: no feed would take it"
        )
    output = args.output
    if output.is_dir():
        output /= f"{args.new.name}.{last}.delta"
    spare(output, args.old, args.new, key_file)
    try:
        with progress_bar() as progress:
            delta = make_delta(old, new, key, progress)
    except DeltaError as e:
        raise UrlwardError(f"{args.new}: {e}") from e
    write_in_kind(output, delta)
    print(f"{output}: {_told_extent(delta, old, new)}, {time.monotonic() - start:.1f} s")
    return DONE


def _patch(args: argparse.Namespace) -> int:
    key_file = args.key or key_beside(args.old)
    key = find_key(args.key, (args.old,))
    old = _artifact(args.old, key)
    delta = read_artifact(args.delta)
    spare(args.output, args.delta, key_file)
    try:
        with progress_bar() as progress:
            artifact = apply_delta(old, delta, key, progress=progress)
    except DeltaError as e:
        raise UrlwardError(f"{args.delta}: {e}") from e
    write_in_kind(args.output, artifact)
    new = parse(artifact)
    print(f"{args.output}: serial {new.header.serial}, {_told_extent(delta, old, new)}")
    return DONE


def _artifact(path: Path, key: Key) -> Artifact:
    try:
        artifact = parse(read_artifact(path))
        check_key(artifact.header, key)
    except ArtifactError as e:
        raise UrlwardError(told(path, e)) from e
    return artifact


def _told_extent(delta: bytes, old: Artifact, new: Artifact) -> str:
    added, removed = changes(old, new)
    sizes = f"delta of {len(delta)} bytes for an artifact of {new.header.size}"
    return f"{sizes}, {counted(added, 'entry')} added, {removed} removed"
