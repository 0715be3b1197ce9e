"""Addon script for mitmproxy: ``mitmdump -s "$(urlward script)"``."""

from urlward.proxy.addon import Urlward

addons = [Urlward()]
