"""Pages for people: words in several languages, their negotiation, style and content policy."""

from urlward.lazy import import_lazily

import_lazily("werkzeug")
