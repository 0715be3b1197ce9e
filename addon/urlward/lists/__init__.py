"""Lists: reading sources, compiling them, keeping the snapshot in force up to date."""

from urlward.lazy import import_lazily

import_lazily("werkzeug")
