"""``[publish]``: where lists are published, and the canaries on which a new one is tried first."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from urlward.config.tables import FileName, Seconds, Table, place_name

_HOUR = 3_600.0


def _node(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in url or "?" in url or "#" in url or not url.isprintable():
        raise ValueError("not an http:// or https:// address of a node's dashboard")
    return url.rstrip("/")


class PublishCanaryTable(Table):
    """``[[publish.canary]]``: a node that has new lists first, and is asked how it fares.

    Attributes:
        url: of its dashboard.
        token_file: file with the token of a viewer.
        ca: PEM file of the authorities that its certificate may be of; the system's otherwise.
    """

    url: Annotated[str, AfterValidator(_node)]
    token_file: FileName
    ca: FileName | None = None


class PublishTable(Table):
    """``[publish]``: lists for other nodes.

    Attributes:
        to: folder, or ``s3://BUCKET/PREFIX``.
        key: file of the key that texts are compiled under.
        sign: file of the private key that every list is signed with.
        valid_for: seconds for which each is valid; without end where not given.
        keep: earlier versions of each list that are kept, and lead to the present one by a delta.
        lease: seconds after which another publisher takes the place of one that is silent.
        observe: seconds for which canaries have a new list before all have it.
        max_rise: times its own rate before to which a canary's blocks, faults and objections may rise.
        canary: nodes that have new lists first.
    """

    to: Annotated[str | None, AfterValidator(place_name)] = None
    key: FileName
    sign: FileName
    valid_for: Annotated[Seconds, Field(ge=60)] | None = None
    keep: Annotated[int, Field(ge=1, le=50)] = 5
    lease: Annotated[Seconds, Field(ge=1, le=_HOUR)] = 30.0
    observe: Annotated[Seconds, Field(ge=1, le=30 * 24 * _HOUR)] = _HOUR / 2
    max_rise: Annotated[float, Field(ge=1, strict=False, allow_inf_nan=False)] = 2.0
    canary: tuple[PublishCanaryTable, ...] = Field(default=(), strict=False)
