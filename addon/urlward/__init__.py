"""urlward: an inline HTTP(S) URL filter on mitmproxy, with hashed blocklists.

What other programs use of it (``urlward help library``) is imported at its first use: the command line starts
without it. Its types stand beside this, in ``__init__.pyi``.
"""

from typing import Any

__all__ = ["Filter", "UrlError", "UrlwardError", "Verdict"]

_PLACES = {"UrlError": "engine.errors", "UrlwardError": "engine.errors", "Verdict": "engine.verdict"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("urlward")
    if name not in __all__:
        raise AttributeError(f"module 'urlward' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"urlward.{_PLACES.get(name, 'library')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
