"""mitmproxy's option ``proxyauth``, and access to the proxy by what mitmproxy's flows carry.

mitmproxy's own addon of that option would look passwords up in the event loop, and import an LDAP client.
"""

import asyncio
import binascii
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from mitmproxy import addonmanager, ctx, exceptions, http
from mitmproxy.connection import Client
from mitmproxy.proxy import mode_specs

from urlward.proxy.addon import Urlward
from urlward.proxy.head import RequestHead
from urlward.proxy.layers import answer_now
from urlward.proxy.mitm import Socks5AuthData
from urlward.proxy.passwords import PasswordError, Passwords


class Authentication:
    """mitmproxy addon that checks proxy passwords; the data path does so by itself.

    Args:
        urlward: whose connections they are.
    """

    def __init__(self, urlward: Urlward) -> None:
        self._urlward = urlward
        self._admitted: WeakSet[Client] = WeakSet()
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
            except PasswordError as e:
                raise exceptions.OptionsError(str(e)) from e

    async def socks5_auth(self, data: Socks5AuthData) -> None:
        """Check the user and password that a SOCKS5 client has sent."""
        passwords = self._urlward.access.passwords
        token = binascii.b2a_base64(f"{data.username}:{data.password}".encode(), newline=False)
        if passwords is not None:

            def ask(done: Callable[[], None]) -> bool | None:
                known = passwords.known(token)
                asked = known is None and passwords.ask(token, str(data.client_conn.peername[0]), done)
                return None if asked else bool(known)

            data.valid = bool(await _answer(ask))

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Check the credentials of a CONNECT request."""
        if await self._takes(flow):
            self._admitted.add(flow.client_conn)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Check the credentials of a request, if it is for the proxy."""
        explicit = mode_specs.RegularMode | mode_specs.UpstreamMode
        if isinstance(flow.client_conn.proxy_mode, explicit) and flow.client_conn not in self._admitted:
            await self._takes(flow)

    async def _takes(self, flow: http.HTTPFlow) -> bool:
        request = flow.request
        head = RequestHead(request.data.method, b"", 1)
        head.fields = list(request.headers.fields)

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
