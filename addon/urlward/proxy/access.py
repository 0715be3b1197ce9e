"""Access to the explicit proxy: who may use it, for which destinations, and what it serves of its own.

mitmproxy's own addon of the option ``proxyauth`` would look passwords up in the event loop, and import an
LDAP client.
"""

import asyncio
import binascii
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, Literal
from weakref import WeakSet

from mitmproxy import addonmanager, ctx, exceptions, http
from mitmproxy.proxy import mode_specs

from urlward.config import ProxyTable
from urlward.config.proxy import PacTable, port_table
from urlward.engine.errors import UrlwardError
from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.head import RequestHead
from urlward.proxy.layers import answer_now
from urlward.proxy.mitm import Socks5AuthData
from urlward.proxy.names import Client, head_of
from urlward.proxy.passwords import Passwords

PAC_PATHS: Final = (b"/proxy.pac", b"/wpad.dat")

_EXPLICIT = mode_specs.RegularMode | mode_specs.Socks5Mode
_CHALLENGE = ((b"Proxy-Authenticate", b'Basic realm="urlward", charset="UTF-8"'),)
_PAC = """\
function FindProxyForURL(url, host) {
  host = host.toLowerCase();
  if (isPlainHostName(host) && host.indexOf(":") < 0%s) return "DIRECT";
  return "%s";
}
"""
# Only some browsers have `isInNetEx`; Firefox goes past the proxy where a name is missing.
_PAC_BITS = """\
function bits(host) {
  var zeros = ":", text = "", groups, n;
  for (n = host.split(":").length; n < 9; n++) zeros += "0:";
  groups = host.replace(/[\\[\\]]/g, "").replace("::", zeros).split(":");
  for (n = 0; n < 8; n++) text += ((parseInt(groups[n], 16) || 0) + 65536).toString(2).slice(1);
  return text;
}
"""


class Access:
    """Access rules of the explicit proxy: who may use it, and for which destinations.

    Args:
        table: the configuration's.
        passwords: of those who may use it; None where all may.

    Attributes:
        table: as given.
        passwords: as given.
    """

    def __init__(self, table: ProxyTable, passwords: Passwords | None = None) -> None:
        self.table = table
        self.passwords = passwords
        self._ports = port_table(table.ports)
        self._connect_ports = port_table(table.connect_ports or table.ports)
        self._pac = None if table.pac is None else _pac(table.pac)

    def takes_tunnel(self, port: int) -> bool:
        """Whether CONNECT and SOCKS may lead to a port."""
        return bool(self._connect_ports[port])

    def is_free(self, client: Client) -> bool:
        """Whether a client may be led to what only this machine reaches: where it does not name the
        destination, or is on this machine. In a tunnel it writes both addresses itself."""
        mode = client.proxy_mode
        tunnel = isinstance(mode, mode_specs.WireGuardMode)
        if self.table.allow_local or not (tunnel or isinstance(mode, _EXPLICIT)):
            return True
        return not tunnel and _address(str(client.peername[0])).is_loopback

    def refusal(
        self, head: RequestHead, port: int, client: Client, done: Callable[[], None]
    ) -> BlockResponse | Literal["wait"] | None:
        """The response to a request that is refused; ``wait`` where that is not known before `done` is
        called.

        Args:
            head: of the request.
            port: of its destination.
            client: whose.
            done: see there.
        """
        if self.passwords is not None:
            scheme, _, token = head.get(b"proxy-authorization").partition(b" ")
            token = token.strip(b" \t")
            known = self.passwords.known(token) if token and scheme.lower() == b"basic" else False
            if known is None:
                if self.passwords.ask(token, str(client.peername[0]), done):
                    return "wait"
                wait = self.passwords.wait
                again = ((b"Retry-After", b"%d" % wait),) if wait else ()
                return _plain(head, 503, "Too many passwords are being looked at.", again)
            if not known:
                return _plain(head, 407, "The proxy needs a user and a password.", _CHALLENGE)
        if not (self._connect_ports if head.method == b"CONNECT" else self._ports)[port]:
            return _plain(head, 403, "The proxy does not connect to this port.")
        return None

    def own(self, head: RequestHead) -> BlockResponse:
        """The response to a request for the proxy itself, such as the PAC file."""
        if self._pac is None or head.target.partition(b"?")[0] not in PAC_PATHS:
            return _plain(head, 400, "a proxy needs to be asked for a whole URL")
        if head.method not in (b"GET", b"HEAD"):
            return _plain(head, 405, "There is nothing but GET here.", ((b"Allow", b"GET, HEAD"),))
        fields = (
            (b"Content-Type", b"application/x-ns-proxy-autoconfig"),
            (b"Content-Length", b"%d" % len(self._pac)),
            (b"Cache-Control", b"no-cache"),
        )
        return BlockResponse(200, "OK", fields, b"" if head.method == b"HEAD" else self._pac)


def _plain(
    head: RequestHead, status: int, text: str, more: tuple[tuple[bytes, bytes], ...] = ()
) -> BlockResponse:
    return plain(status, text, head=head.method == b"HEAD", more=more)


@lru_cache(1 << 12)
def is_inside(address: str) -> bool:
    """Whether an IP address is one that means another machine to each: loopback, link-local, unspecified."""
    found = _address(address)
    in_this_network = found.version == 4 and found.packed[0] == 0  # RFC 1122 section 3.2.1.3
    return found.is_loopback or found.is_link_local or found.is_unspecified or in_this_network


@lru_cache(1 << 12)
def _address(text: str) -> IPv4Address | IPv6Address:
    found = ip_address(text)
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _pac(table: PacTable) -> bytes:
    """PAC file, in JavaScript. No name is looked up by it, since a browser would wait for that at each URL;
    and nothing goes past the proxies where none of these answers."""
    tests, before = [], ""
    for value in table.direct:
        try:
            network = ip_network(value)
        except ValueError:
            tests.append(f'host == "{value.lower()}" || dnsDomainIs(host, ".{value.lower()}")')
            continue
        if network.version == 4:
            numbers = f'isInNet(host, "{network.network_address}", "{network.netmask}")'
            tests.append(rf"/^\d+\.\d+\.\d+\.\d+$/.test(host) && {numbers}")
        else:
            prefix = f"{int(network.network_address):0128b}"[: network.prefixlen]
            tests.append(f'host.indexOf(":") >= 0 && bits(host).indexOf("{prefix}") == 0')
            before = _PAC_BITS
    proxies = "; ".join(f"{'HTTPS' if table.tls else 'PROXY'} {each}" for each in table.proxies)
    return (before + _PAC % ("".join(f" ||\n      {test}" for test in tests), proxies)).encode("ascii")


class Authentication:
    """mitmproxy addon that checks proxy passwords; the data path does so by itself.

    Args:
        urlward: whose connections they are; an `urlward.proxy.addon.Urlward`.
    """

    def __init__(self, urlward: Any) -> None:
        self._urlward = urlward
        self._admitted: WeakSet[Any] = WeakSet()
        """Connections whose tunnel was let by, so that nothing in it is asked again."""

    def load(self, loader: addonmanager.Loader) -> None:
        """Declare the option."""
        text = "Who may use the proxy: USER:PASSWORD, @FILE of users, any, or ldap…"
        loader.add_option("proxyauth", str | None, None, text)  # type: ignore[arg-type]

    def configure(self, updated: set[str]) -> None:
        """Take a changed option into use, or refuse it with what is wrong."""
        if "proxyauth" in updated:
            spec = ctx.options.proxyauth
            try:
                self._urlward.take_passwords(Passwords(spec) if spec else None)
            except UrlwardError as e:
                raise exceptions.OptionsError(str(e)) from e

    async def socks5_auth(self, data: Socks5AuthData) -> None:
        """Check the user and password that a SOCKS5 client has sent."""
        passwords = self._urlward.access.passwords
        token = binascii.b2a_base64(f"{data.username}:{data.password}".encode(), newline=False)
        if passwords is not None:
            address = str(data.client_conn.peername[0])
            data.valid = await _answer(partial(passwords.admits, token, address))

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Check the credentials of a CONNECT request."""
        if await self._takes(flow):
            self._admitted.add(flow.client_conn)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Check the credentials of a request, if it is for the proxy; answer one that asks it for itself."""
        explicit = mode_specs.RegularMode | mode_specs.UpstreamMode
        if flow.metadata.get("urlward") == "own" and not flow.response:
            head = replace(head_of(flow.request), target=flow.request.data.path)
            answer_now(flow, self._urlward.access.own(head))
        elif isinstance(flow.client_conn.proxy_mode, explicit) and flow.client_conn not in self._admitted:
            await self._takes(flow)

    async def _takes(self, flow: http.HTTPFlow) -> bool:
        request = flow.request
        head = head_of(request)

        def ask(done: Callable[[], None]) -> Any:
            answer = self._urlward.access.refusal(head, request.port, flow.client_conn, done)
            return None if answer == "wait" else answer or True

        answer = await _answer(ask)
        request.headers.pop("proxy-authorization", None)
        if answer is not True:
            answer_now(flow, answer)
        return answer is True


async def _answer(ask: Callable[[Callable[[], None]], Any]) -> Any:
    """The final response; None where it is given to a callback later."""
    while (answer := ask((event := asyncio.Event()).set)) is None:
        await event.wait()
    return answer
