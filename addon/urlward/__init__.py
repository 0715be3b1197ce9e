"""urlward: an inline HTTP(S) URL filter on mitmproxy, with hashed blocklists."""
