"""What can be wrong with a gateway."""

from urlward.engine.errors import UrlwardError


class GatewayError(UrlwardError):
    """Rules, a setting or this machine do not allow what was asked for; the message says what to do."""


class NftError(GatewayError):
    """The kernel, or libnftables, refused a command."""


class NftMissingError(NftError):
    """There is no libnftables on this machine, or no nf_tables in its kernel."""


class NftPermissionError(NftError):
    """This process may not change rules."""


class NoTableError(NftError):
    """A table, chain, set or element that a command names is not there."""


class SetFullError(NftError):
    """A set holds as many elements as it may."""
