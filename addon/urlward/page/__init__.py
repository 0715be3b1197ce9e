"""What pages to people are made of: words in several languages, the choice among them, style and policy."""

from urlward.lazy import import_lazily

import_lazily("werkzeug")
