"""The data path: mitmproxy addon, block page, runner."""

from urlward.lazy import import_lazily

import_lazily("mitmproxy.addons")
