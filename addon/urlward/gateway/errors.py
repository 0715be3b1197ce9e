"""Errors of the gateway."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from urlward.config import Config
from urlward.config.problem import SettingError
from urlward.engine.errors import UrlwardError


class GatewayError(UrlwardError):
    """Rules, a setting or this machine do not allow what was asked for; the message says what to do."""


@contextmanager
def located(config: Config) -> Iterator[None]:
    """Add to an error where its key stands in the file.

    Raises:
        ConfigError: in place of a `SettingError`.
    """
    try:
        yield
    except SettingError as e:
        raise config.refused(e.problem) from e


class NoRulesError(GatewayError):
    """The kernel has no rules that would lead traffic to a filter."""


class NftError(GatewayError):
    """The kernel, or libnftables, refused a command, or is not to be had: it is missing, or not permitted."""

    @classmethod
    def of(cls, error: OSError) -> Self:
        """Error from the kernel's own error code, without libnftables."""
        return cls(f"nftables: {(error.strerror or str(error)).lower()}")


class NoTableError(NftError):
    """A table, chain, set or element that a command names does not exist."""


class SetFullError(NftError):
    """A set holds as many elements as it may."""
