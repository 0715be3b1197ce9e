"""adblock-rust, the engine of the Brave browser, through its Python package ``adblock``.

Requests are of the type ``other``, to which rules without a type apply; to ``document`` only rules
of that type do, which gains nothing in speed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import adblock
from benchmarks.engine.contenders.base import Contender, Run, Steps
from benchmarks.engine.material import Files, Request

_SOURCE = "origin.invalid"
_TYPE = "other"


class Engine(Contender):
    """A filter set, optimised, without cosmetic rules."""

    stores: ClassVar[bool] = True

    def __init__(self) -> None:
        self._engine: Any = None

    def build(self, files: Files) -> Steps:
        """Parse the rules, then make the engine; two calls."""
        rules = adblock.FilterSet(debug=False)
        rules.add_filter_list(files.rules.read_text(), format="standard")
        yield
        self._engine = adblock.Engine(rules, optimize=True)
        yield

    def store(self) -> bytes:
        """Its own compressed form."""
        data: bytes = self._engine.serialize()
        return data

    def load(self, data: bytes) -> Steps:
        """One call."""
        self._engine = adblock.Engine(adblock.FilterSet(debug=False), optimize=True)
        self._engine.deserialize(data)
        yield

    def release(self) -> Steps:
        """One call."""
        self._engine = None
        yield

    def run(self, requests: Sequence[Request]) -> int:
        """With the host given, which spares it to parse the URL: its fastest way."""
        check = self._engine.check_network_urls_with_hostnames
        blocked = 0
        for host, target in requests:
            if check(f"http://{host}{target}", host, _SOURCE, _TYPE, True).matched:
                blocked += 1
        return blocked

    @property
    def variants(self) -> Mapping[str, Run]:
        """`parsed`: it finds the host in the URL itself."""
        return {"parsed": self._run_parsed}

    def _run_parsed(self, requests: Sequence[Request]) -> int:
        check = self._engine.check_network_urls
        source = f"http://{_SOURCE}/"
        blocked = 0
        for host, target in requests:
            if check(f"http://{host}{target}", source, _TYPE).matched:
                blocked += 1
        return blocked
