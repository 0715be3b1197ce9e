"""What ``mitmdump -s "$(urlward script)"`` loads."""

from urlward.proxy.addon import Urlward

addons = [Urlward()]
