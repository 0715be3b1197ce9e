import os

import pytest

from urlward.engine.errors import UrlwardError
from urlward.gateway import system as module
from urlward.gateway.system import alone


def test_a_second_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAME", f"{module.NAME}-test-{os.getpid()}")
    with alone(), pytest.raises(UrlwardError, match="another urlward steers in this network namespace"):
        alone()
    with alone():
        pass


def test_what_else_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAME", "\0" + "x" * 500)
    with pytest.raises((UrlwardError, OSError)):
        alone()
    monkeypatch.setattr(module, "NAME", "/nowhere/at/all")
    with pytest.raises(UrlwardError, match="cannot see whether another urlward steers: No such file"):
        alone()
