"""Stage 1: the addon that answers DNS and steers the addresses of listed names."""

from urlward.config import GatewayTable


def steering_modes(gateway: GatewayTable) -> tuple[str, ...]:
    """mitmproxy modes for a filter that steers."""
    return ("transparent", f"dns@{gateway.dns.port}")


class Steering:
    """Steers."""

    def __init__(self, gateway: GatewayTable) -> None:
        self._gateway = gateway
