"""Shareable part of a configuration, as for whoever helps: decided by the types of its keys.

Numbers, truth values, choices among fixed words and what is as the program has it by itself say nothing of
anybody. A text does not leave unless its key is declared `Shareable`; so what a new key holds stays until
somebody has thought about it.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from urlward.config.tables import Shareable, Table

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
