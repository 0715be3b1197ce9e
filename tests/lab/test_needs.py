import ctypes.util
import os
import subprocess

import pytest

from urlward.engine.errors import UrlwardError
from urlward.lab import isolation
from urlward.lab.isolation import check_needs


def test_each_missing_thing_is_a_line_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        isolation, "find", lambda name: None if name in ("nginx", "dnsmasq") else f"/usr/bin/{name}"
    )
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UrlwardError) as raised:
        check_needs()
    lines = f"urlward: {raised.value}".splitlines()
    assert lines == [
        "urlward: lab: needs root, for network namespaces; try: sudo",
        "urlward: nginx: not found; install the Debian package nginx-light",
        "urlward: dnsmasq: not found; install the Debian package dnsmasq-base",
        "urlward: libnftables.so.1: not found; install the Debian package libnftables1",
    ]


def test_a_container_without_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "find", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: "libnftables.so.1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    refused = subprocess.CompletedProcess([], 1, "", "unshare: unshare failed: Operation not permitted\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    with pytest.raises(UrlwardError, match=r"unshare failed: Operation not permitted\); in a container"):
        check_needs()
