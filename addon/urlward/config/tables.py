"""What the tables of the configuration file have in common."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FileName = Annotated[str, Field(min_length=1)]
"""Relative ones are from the configuration file's folder."""


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_network(value)
        except ValueError as e:
            raise ValueError(f"{value!r} is not a network, such as 192.0.2.0/24: {e}") from e
    return values


def _addresses(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_address(value)
        except ValueError as e:
            raise ValueError(f"{value!r} is not an IP address") from e
    return values


_PUBLIC_KEY = re.compile(r"[0-9A-Fa-f]{64}").fullmatch


def trust_at(values: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Public keys and files of who is trusted, relative files taken from a folder.

    Raises:
        RuntimeError: a ``~`` that stands for no home folder.
    """
    return tuple(value if _PUBLIC_KEY(value) else str(folder / Path(value).expanduser()) for value in values)


class Table(BaseModel):
    """Strict, frozen, and without keys that are not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Networks = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_networks)]
Addresses = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_addresses)]
Port = Annotated[int, Field(ge=1, le=65535)]
