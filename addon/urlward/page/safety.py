"""Content security policy of pages, and their encoding: a page fetches, runs and sends nothing unintended."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

SHARED: Final = Path(__file__).parent / "templates"
"""Folder of ``style.css``, which pages include."""

_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)


def content_policy(page: str, *, form_action: str = "'none'", framed: bool = True) -> str:
    """Return a CSP (level 3) that lets the page's own style elements be used and nothing be fetched or run.

    Args:
        page: HTML; empty for what is none.
        form_action: where its forms may go: a source of CSP.
        framed: whether others may frame it. A blocked frame should say that it is blocked.
    """
    hashes = (hashlib.sha256(encode(style)).digest() for style in _STYLE.findall(page))
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    # Images in data: URLs are for a page's icon and an operator's logo.
    styles = f"style-src {sources or "'none'"}"
    policy = f"default-src 'none'; {styles}; img-src data:; base-uri 'none'; form-action {form_action}"
    return policy if framed else f"{policy}; frame-ancestors 'none'"


def encode(text: str) -> bytes:
    """Return ``text`` as UTF-8, whatever it holds."""
    # A lone surrogate, which JSON lists can bring in, must not cost the client its block page.
    return text.encode("utf-8", "replace")
