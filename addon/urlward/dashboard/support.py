"""Bundle for support at the dashboard: what ``urlward support`` writes, as a download.

A process of its own makes it, which has time for what hangs, and whose memory goes with it.
"""

import asyncio
import subprocess
from http import HTTPStatus

from tornado.web import HTTPError

from urlward.dashboard.api import Api
from urlward.dashboard.handler import Base, HandlerContext
from urlward.dashboard.pages import Form
from urlward.dashboard.sources import AdminError, NotConfiguredError
from urlward.process import module_command
from urlward.state.audit import append

WITHIN = 120.0
"""Seconds that a bundle may take."""


class _OfSupport(Base):
    """Common part of the button and the interface for scripts."""

    async def send_bundle(self) -> None:
        """Send a bundle; one is made at a time.

        Raises:
            HTTPError: 429 while another is made.
            AdminError: none could be made.
        """
        context = self.context
        if context.bundling.locked():
            self._wait = WITHIN / 4
            raise HTTPError(HTTPStatus.TOO_MANY_REQUESTS, reason="A bundle is being made already")
        async with context.bundling:
            await self.ask(append, context.state, self.who(), "support-bundle", context.clock())
            data = await made_bundle(context)
        self.set_header("Content-Type", "application/zip")
        self.set_header("Content-Disposition", 'attachment; filename="urlward-support.zip"')
        await self.finish(data)


class SupportButton(Form, _OfSupport):
    """Handler of the button."""

    async def post(self) -> None:
        """Send a bundle."""
        await self.send_bundle()


class SupportApi(Api, _OfSupport):
    """Bundle for scripts."""

    async def post(self) -> None:
        """Send a bundle."""
        self.body()
        await self.send_bundle()


async def made_bundle(context: HandlerContext) -> bytes:
    """Have a bundle made by ``urlward support``.

    Raises:
        NotConfiguredError: there is no configuration file.
        AdminError: it could not be made, or not in time.
    """
    if context.config is None:
        raise NotConfiguredError("A bundle is of a configuration file, and there is none.")
    line = ("support", "--output", "-", "--config", str(context.config), "--state", str(context.state))
    process = await asyncio.create_subprocess_exec(
        *module_command("urlward", *line), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        data, _ = await asyncio.wait_for(process.communicate(), WITHIN)
    except TimeoutError as e:
        raise AdminError(f"bundle: not made within {WITHIN:.0f} s") from e
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise AdminError("bundle: not made; `urlward support -o FILE` says why")
    return data
