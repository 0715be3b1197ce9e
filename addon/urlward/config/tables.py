"""Base class and value types of the configuration file's tables.

A configuration can be shown to whoever helps (`shareable`): numbers, truth values, choices among fixed words
and what is as the program has it by itself say nothing of anybody. A text does not leave unless its key is
declared `Shareable`; so what a new key holds stays until somebody has thought about it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.fields import FieldInfo

from urlward import units
from urlward.engine.errors import UrlwardError
from urlward.engine.nat64 import nat64_prefix

WRITTEN = "as an operator wrote it"
"""Context of a validation that refuses what has no unit; the program's own are seconds and bytes."""


def spelt(pattern: str, words: str) -> AfterValidator:
    """Make a check of a text's spelling.

    Args:
        pattern: of the whole text.
        words: the same, for people.
    """
    matches = re.compile(pattern).fullmatch

    def check(text: str) -> str:
        if matches(text) is None:
            raise ValueError(f"input should be {words}")
        return text

    return AfterValidator(check)


class _VariableName(str):
    """Name of an environment variable that holds what is secret."""

    __slots__ = ()


Variable = Annotated[
    str,
    spelt(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable: letters, digits and _, no digit first"),
    AfterValidator(_VariableName),
]

_PUBLIC_KEY = re.compile(r"[0-9A-Fa-f]{64}").fullmatch


class _Name(str):
    """File name as an operator wrote it."""

    __slots__ = ()


def _file_name(name: str) -> str:
    if "\0" in name:
        raise ValueError("a file's name holds no NUL")
    if "://" in name:
        raise ValueError("a URL, and a file is needed; that of a list is the url of a [[feed]]")
    return _Name(name)


def _signer(name: str) -> str:
    return name if _PUBLIC_KEY(name) else _file_name(name)


BUCKET = "s3://"
"""Begins the name of a place that is no folder."""


def place_name(name: str | None) -> str | None:
    """A folder's name as an operator wrote it, or a bucket's.

    Raises:
        ValueError: neither.
    """
    if name is None:
        return None
    if not name.startswith(BUCKET):
        if "://" in name or not name:
            raise ValueError(f"neither a folder nor {BUCKET}BUCKET/PREFIX")
        return _file_name(name)
    if not name.removeprefix(BUCKET).strip("/") or not name.isprintable():
        raise ValueError(f"{BUCKET} without a bucket")
    return name.rstrip("/")


class Shareable:
    """Mark of a key whose text says nothing of anybody: a bundle for support has it (`shareable`)."""

    __slots__ = ()


SHAREABLE = Shareable()

FileName = Annotated[str, Field(min_length=1), AfterValidator(_file_name)]
"""Relative ones are from the configuration file's folder."""

Signer = Annotated[str, Field(min_length=1), AfterValidator(_signer)]
"""Public key, or the name of the file that has it or a rotation statement."""


def _each(read: Callable[[str], object], what: str) -> AfterValidator:
    """Validator of texts that can be read; `what` they are to be may tell why one cannot."""

    def checked(values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                read(value)
            except ValueError as e:
                raise ValueError(f"{value!r} is not {what.format(e)}") from e
        return values

    return AfterValidator(checked)


def node_name(name: str) -> str:
    """Check the name of a node.

    Raises:
        ValueError: it cannot be one.
    """
    if not name.isascii() or not name.isprintable() or " " in name:
        raise ValueError("a node's name has printable ASCII characters and no spaces")
    return name


_HOST_PORT = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]|([A-Za-z0-9._-]*)):([0-9]{1,5})", re.ASCII
).fullmatch
# What the last label of is a number is an address, or nothing (WHATWG URL standard, section 3.5).
_NUMBERS = re.compile(r"(?:.*\.)?[0-9]+\.?", re.ASCII).fullmatch
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?", re.ASCII).fullmatch
_LONGEST_NAME = 253


def split_address(text: str, *, lowest: int = 1, any_host: bool = False) -> tuple[str, int]:
    """Parse ``HOST:PORT``: host, without brackets, and port.

    Args:
        text: an IPv6 address in it is in brackets.
        lowest: port; 0 where the system may choose one.
        any_host: whether the host may be empty, which stands for all addresses.

    Raises:
        ValueError: it is none.
    """
    match = _HOST_PORT(text)
    if match is None or not lowest <= int(match[3]) <= 65_535 or not (any_host or match[1] or match[2]):
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    try:
        if match[1]:
            IPv6Address(match[1])
        elif _NUMBERS(match[2]):
            IPv4Address(match[2])
        elif match[2] and (len(match[2]) > _LONGEST_NAME or not _NAME(match[2])):
            raise ValueError("neither an address nor a name")
    except ValueError as e:
        raise ValueError(f"{text!r} is not HOST:PORT: its host is neither an address nor a name") from e
    return match[1] or match[2], int(match[3])


def named_address(name: str, text: str, *, lowest: int = 1, any_host: bool = False) -> tuple[str, int]:
    """As `split_address`, of what an operator calls `name`.

    Raises:
        UrlwardError: it is none.
    """
    try:
        return split_address(text, lowest=lowest, any_host=any_host)
    except ValueError as e:
        raise UrlwardError(f"{name}: {e}") from e


def join_address(host: str, port: int) -> str:
    """The ``HOST:PORT`` that `split_address` parses."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(text: str) -> str:
    split_address(text)
    return text


def _served(text: str) -> str:
    split_address(text, lowest=0)
    return text


def _listen(text: str) -> str:
    split_address(text, lowest=0, any_host=True)
    return text


Address = Annotated[str, AfterValidator(_address)]
"""``HOST:PORT`` that is connected to."""

Served = Annotated[str, AfterValidator(_served)]
"""``HOST:PORT`` that is listened on; the system chooses a port in place of 0."""

Listen = Annotated[str, AfterValidator(_listen)]
"""``HOST:PORT`` that is listened on, or ``:PORT`` for all addresses; the system chooses a port for 0."""


class Table(BaseModel):
    """Base class of tables: strict, frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def resolved[T](value: T, folder: Path) -> T:
    """Copy of a table, or of what is in one, with file names that an operator wrote taken from a folder.

    Raises:
        RuntimeError: a ``~`` that stands for no home folder.
    """
    made: Any = value
    if isinstance(value, _Name):
        made = str(folder / Path(value).expanduser())
    elif isinstance(value, tuple):
        made = tuple(resolved(each, folder) for each in value)
    elif isinstance(value, dict):
        made = {key: resolved(each, folder) for key, each in value.items()}
    elif isinstance(value, Table):
        made = value.model_copy(
            update={name: resolved(getattr(value, name), folder) for name in value.model_fields_set}
        )
    return cast("T", made)


def variables(value: object) -> Iterator[str]:
    """Names of environment variables that a value of a configuration takes secrets from."""
    if isinstance(value, _VariableName):
        yield str(value)
    elif isinstance(value, Table):
        for name in type(value).model_fields:
            yield from variables(getattr(value, name))
    elif isinstance(value, tuple):
        for each in value:
            yield from variables(each)


Networks = Annotated[
    tuple[str, ...], Field(strict=False), _each(ip_network, "a network, such as 192.0.2.0/24: {}")
]
Nat64Prefixes = Annotated[
    tuple[str, ...],
    Field(strict=False),
    _each(nat64_prefix, "a NAT64 prefix (RFC 6052), such as 2001:db8:64::/96: {}"),
]
Addresses = Annotated[tuple[str, ...], Field(strict=False), _each(ip_address, "an IP address")]
Port = Annotated[int, Field(ge=1, le=65535)]


def _seconds(value: object, info: ValidationInfo) -> object:
    _refuse_bare(value, info, units.TIME)
    return units.seconds(value)


def _size(value: object, info: ValidationInfo) -> object:
    _refuse_bare(value, info, units.SIZE)
    return units.size(value)


def _refuse_bare(value: object, info: ValidationInfo, text: str) -> None:
    if info.context == WRITTEN and not isinstance(value, str):
        raise ValueError(f"{text}, in quotes and with its unit")


Seconds = Annotated[float, BeforeValidator(_seconds), Field(strict=False, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_size)]


NOT_SHOWN: Final = "(set, not shown)"


def shareable(table: Table) -> dict[str, Any]:
    """What of a table may be shown, by key; `NOT_SHOWN`, or a number of those, stands for what may not."""
    return {
        field.alias or name: _of_field(getattr(table, name), field)
        for name, field in type(table).model_fields.items()
    }


def _of_field(value: Any, field: FieldInfo) -> Any:
    if not isinstance(value, Table) and field.default_factory is None and value == field.default:
        return _plain(value)
    shared = any(isinstance(one, Shareable) for one in field.metadata)
    return _shown(value, field.annotation, shared=shared)


def _shown(value: Any, annotation: Any, *, shared: bool) -> Any:
    """Show what may be of a value.

    Args:
        value: of a key, or of a part of one.
        annotation: its type.
        shared: whether the key was declared to be `Shareable`.
    """
    if isinstance(value, Table):
        return shareable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        shared = shared or any(isinstance(one, Shareable) for one in metadata)
    if isinstance(value, Mapping):
        # Its keys are names that somebody has given.
        inner = (get_args(annotation) or (None, None))[-1]
        return _counted([_shown(one, inner, shared=shared) for one in value.values()])
    if isinstance(value, tuple | list):
        inner = (get_args(annotation) or (None,))[0]
        return _counted([_shown(one, inner, shared=shared) for one in value])
    return value if isinstance(value, str) and (shared or value in _words(annotation)) else NOT_SHOWN


def _counted(shown: list[Any]) -> Any:
    if shown and all(one == NOT_SHOWN for one in shown):
        return f"({len(shown)} set, not shown)"
    return shown


def _words(annotation: Any) -> frozenset[str]:
    """Fixed words that a type is a choice among."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return frozenset(one for one in arguments if isinstance(one, str))
    if origin in (Union, UnionType, Annotated):
        return frozenset().union(*map(_words, arguments))
    return frozenset()


def _plain(value: Any) -> Any:
    """A value that the program has by itself, as JSON has it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return shareable(value) if isinstance(value, Table) else value
