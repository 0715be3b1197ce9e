"""What can be wrong with a gateway."""

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
    """Say of a key that does not do where it stands in the file.

    Raises:
        ConfigError: in place of a `SettingError`.
    """
    try:
        yield
    except SettingError as e:
        raise config.refused(e.problem) from e


class NoRulesError(GatewayError):
    """There are no rules in the kernel that would lead traffic to a filter."""


class NftError(GatewayError):
    """The kernel, or libnftables, refused a command."""

    @classmethod
    def of(cls, error: OSError) -> Self:
        """What the kernel has said itself, without libnftables."""
        return cls(f"nftables: {(error.strerror or str(error)).lower()}")


class NftMissingError(NftError):
    """There is no libnftables on this machine, or no nf_tables in its kernel."""


class NftPermissionError(NftError):
    """This process may not change rules."""


class NoTableError(NftError):
    """A table, chain, set or element that a command names is not there."""


class SetFullError(NftError):
    """A set holds as many elements as it may."""
