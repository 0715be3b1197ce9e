"""Addon script for mitmproxy: ``mitmdump -s "$(urlward script)"``."""

import logging
from pathlib import Path
from typing import Any

from mitmproxy import ctx, exceptions

from urlward.config import Config, read_config
from urlward.engine.errors import UrlwardError
from urlward.options import OF_ADDON, for_addon
from urlward.proxy.addon import Urlward
from urlward.proxy.mitm import is_set

logger = logging.getLogger(__name__)


class Script(Urlward):
    """The addon in mitmproxy's own tools, where nobody has read flags and configuration before.

    What no option says, the file of `urlward_config` does, as in ``urlward run``.
    """

    name = "urlward"

    def __init__(self) -> None:
        super().__init__()
        self._of_file: dict[str, Any] = {}
        self._filling = False

    def configure(self, updated: set[str]) -> None:
        """See `Urlward.configure`."""
        if self._filling:
            return
        if "urlward_config" in updated:
            updated = updated | self._fill()
        super().configure(updated)

    def running(self) -> None:
        """See `Urlward.running`."""
        super().running()
        # mitmproxy keeps what no addon has declared, in case one does later, and says nothing.
        for name in ctx.options.deferred:
            if name.startswith("urlward_"):
                logger.error("%s: no such option (urlward help modes)", name)

    def _fill(self) -> set[str]:
        """Set the options that nobody has set as the configuration has them, and give their names."""
        try:
            config = read_config(Path(ctx.options.urlward_config)) if ctx.options.urlward_config else Config()
        except UrlwardError:  # which is told where it is read for all else
            return set()
        if config.proxy.users is not None and not getattr(ctx.options, "proxyauth", None):
            text = "proxy.users: `urlward run` asks for passwords; here set proxyauth, or anybody gets in"
            raise exceptions.OptionsError(f"urlward: {text}")
        self._of_file = {
            each.option: for_addon(getattr(config, each.name))
            for each in OF_ADDON
            if each.key and (not is_set(ctx.options, each.option) or self._is_of_file(each.option))
        }
        self._filling = True
        try:
            ctx.options.update(**self._of_file)
        finally:
            self._filling = False
        return set(self._of_file)

    def _is_of_file(self, name: str) -> bool:
        return name in self._of_file and getattr(ctx.options, name) == self._of_file[name]


addons = [Script()]
