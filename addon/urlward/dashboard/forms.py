"""Form fields of the tables that the dashboard edits: the keys that people set there. All others of a table
stay as they are in its file."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

from urlward.config import Use
from urlward.config.policy import DAYS
from urlward.dashboard.sources import AdminError
from urlward.lists.formats import AUTO, FORMATS


class Field(NamedTuple):
    """Form field of one key.

    Attributes:
        name: of the key; its label is the text ``field.NAME``, and what is said of it ``hint.KIND.NAME``.
        needed: whether it may not be empty.
        fixed: whether a table that is there keeps it.
        several: whether it is an array, with commas or lines between.
        choices: all that it may be; anything where empty.
        default: what the key is where it is absent.
        wide: whether it takes a whole line.
    """

    name: str
    needed: bool = False
    fixed: bool = False
    several: bool = False
    choices: tuple[str, ...] = ()
    default: str = ""
    wide: bool = False


_USES = get_args(Use)

FIELDS: Mapping[str, tuple[Field, ...]] = {
    "feed": (
        Field("name", needed=True, fixed=True),
        Field("category"),
        Field("url", wide=True),
        Field("path", wide=True),
        Field("format", choices=tuple(FORMATS), default=AUTO),
        Field("interval", default="6h"),
        Field("use", choices=_USES, default="block"),
        Field("user"),
        Field("password_file"),
        Field("token_file"),
    ),
    "group": (
        Field("name", needed=True),
        Field("page"),
        Field("networks", several=True, wide=True),
        Field("macs", several=True, wide=True),
    ),
    "rule": (
        Field("action", needed=True, choices=_USES),
        Field("schedule"),
        Field("lists", several=True, wide=True),
        Field("categories", several=True, wide=True),
    ),
    "schedule": (
        Field("name", needed=True, fixed=True),
        Field("zone", needed=True),
        Field("days", several=True, wide=True, default=", ".join(DAYS)),
        Field("from", default="00:00"),
        Field("to", default="24:00"),
    ),
}


_SENT = {"password_file": ".password", "token_file": ".bearer"}
"""Files whose text goes to a feed's server, and how their names end; no file of urlward's own ends so."""

_SENT_BY_HAND = frozenset({"password_env", "token_env", "client_cert", "client_key"})
"""Keys that no form has, of what goes to a feed's server, too."""


def values_of(
    kind: str, given: Mapping[str, str], before: Mapping[str, Any] | None, others: Collection[str] = ()
) -> dict[str, Any]:
    """Values of the keys that a form gives.

    Args:
        kind: of table.
        given: texts by the names of fields; a field that is not here changes nothing.
        before: the table as it is written; None for a new one.
        others: names of its further keys, which no form has.

    Raises:
        AdminError: a file is to be sent that is not named as one of credentials: whoever may edit feeds is
            not to get at the other files that this process may read, such as keys. Or what somebody else has
            written into the table for one server is to be sent to another.
    """
    found: dict[str, Any] = {}
    for field in FIELDS[kind]:
        if field.name not in given or (before is not None and field.fixed):
            continue
        text = given[field.name].strip()
        value: Any = text
        if field.several:
            value = [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
        # What is said in the file stays said, and what is not need not be.
        if (not value or text == field.default) and (before or {}).get(field.name) != value:
            value = None
        ending = _SENT.get(field.name)
        if value and ending and value != (before or {}).get(field.name) and not value.endswith(ending):
            raise AdminError(f"{field.name}: a file whose name ends in {ending}, since its text is sent")
        found[field.name] = value
    url = found.get("url")
    if url and before is not None and _origin(url) != _origin(before.get("url")):
        kept = {**before, **found}
        sent = [key for key, ending in _SENT.items() if not str(kept.get(key) or ending).endswith(ending)]
        if sent := sorted({*sent, *_SENT_BY_HAND.intersection(others)}):
            raise AdminError(
                f"url: another server, which {sent[0]} is not for: change both where they are written"
            )
    return found


def _origin(url: Any) -> tuple[str, str]:
    """Scheme and authority of a URL; what is none fits none."""
    try:
        parts = urlsplit(str(url or "").lower())
        return parts.scheme, parts.netloc
    except ValueError:
        return "", str(url)


def shown(kind: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Texts of a table for its form."""
    found = {}
    for field in FIELDS[kind]:
        value = values.get(field.name, field.default)
        found[field.name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found
