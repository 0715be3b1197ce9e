"""What the publishing tests share: a configuration, its lists, and nodes that follow."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lists.support import SECRET, artifact, key_file
from urlward.config import Config, FeedTable, PublishTable
from urlward.engine.artifact import Header, parse
from urlward.engine.digest import Key
from urlward.engine.signing import SigningKey
from urlward.publish.lease import Lease
from urlward.publish.place import ListPlace
from urlward.publish.rollout import Lists

KEY = Key(SECRET)
BODY, THEIRS = (SigningKey(bytes([n]) * 32) for n in (1, 2))
NODE = "http://127.0.0.1:1"


def listed(numbers: Iterable[int], serial: int = 1, until: int = 0, more: Iterable[str] = ()) -> bytes:
    """A feed's artifact, as its refresh leaves it."""
    lines = (*(f"h{n}.example" for n in numbers), *more)
    return artifact(lines, SECRET, "phish", serial=serial, valid_until=until)


def configured(folder: Path, *, canary: bool = False, **publish: Any) -> Config:
    key_file(folder / "lists.key")
    (folder / "body").write_bytes(BODY.pem())
    (folder / "token").write_text("token")
    nodes = [{"url": NODE, "token_file": str(folder / "token")}] if canary else []
    table = PublishTable(
        **{"key": str(folder / "lists.key"), "sign": str(folder / "body"), "canary": nodes} | publish
    )
    return Config(publish=table, feed=(FeedTable(name="phish", path=str(folder / "phish.txt")),))


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def leading(place: ListPlace, config: Config, clock: Clock | None = None) -> Lists:
    """Lists of a publisher that leads."""
    assert config.publish is not None
    lease = Lease(place, config.publish.lease, clock or Clock())
    assert lease.take()
    return Lists(place, config, lease)


def offered(place: ListPlace, channel: str = "stable") -> Header | None:
    """Header of what nodes get, which has to be whole."""
    found = place.read(f"{channel}/phish.ward")
    return None if found is None else parse(found.data).header


def deltas(place: ListPlace, channel: str = "stable") -> list[int]:
    """Serials from which a delta leads to what is offered."""
    names = place.names(channel)
    return [int(name.split(".")[2]) for name in names if name.endswith(".delta")]
