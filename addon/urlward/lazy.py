"""Lazy imports of third-party packages: their submodules, without what the package itself imports.

`import mitmproxy.addons.core` first runs the package's own ``__init__``, which imports all of mitmproxy's
thirty addons and with them Flask; ``werkzeug``'s imports a web server and a test client. Each process of
a filter would wait for that as it starts.
"""

import importlib.util
import sys
from contextlib import suppress
from threading import RLock
from types import ModuleType
from typing import Any

_running = RLock()
_begun: set[str] = set()


class _Lazy(ModuleType):
    """Lazy package: its own code runs once a name is needed that none of its modules has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        with suppress(ModuleNotFoundError):
            if importlib.util.find_spec(full) is not None:
                return importlib.import_module(full)
        with _running:
            if self.__class__ is _Lazy and self.__name__ not in _begun:
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                _begun.add(self.__name__)
                try:
                    self.__spec__.loader.exec_module(self)
                finally:
                    _begun.remove(self.__name__)
                self.__class__ = ModuleType  # type: ignore[assignment]
            try:
                return self.__dict__[name]
            except KeyError:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


def import_lazily(package: str) -> None:
    """Make imports from a package import only that module, unless the package is there already.

    Args:
        package: its full name. What its ``__init__`` defines is still found, by running it then.

    Raises:
        ModuleNotFoundError: there is none.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Lazy
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)
