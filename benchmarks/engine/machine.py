"""The machine that a result comes from."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

_RUNTIME = ("urlward", "pyahocorasick", "can-ada", "cachetools", "publicsuffixlist", "cryptography")


class Machine(TypedDict):
    """What timings depend on.

    Attributes:
        cpu: model name.
        cores: that this process may use.
        memory: bytes.
        kernel: name and release.
        python: implementation and version.
        packages: distribution to version.
        load: average of the last minute when the run began: other work on the machine.
    """

    cpu: str
    cores: int
    memory: int
    kernel: str
    python: str
    packages: dict[str, str]
    load: float


def describe() -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}"
        + ("" if getattr(sys, "_is_gil_enabled", lambda: True)() else " without the lock"),
        packages={name: version(name) for name in _RUNTIME},
        load=round(os.getloadavg()[0], 2),
    )


def measured(result: dict[str, Any], figures: str = "", cores: str = "cores") -> str:
    """When and on what a result was measured, with what else it depends on, as one sentence."""
    machine = result["machine"]
    return (
        f"Measured {result['date']} on {machine['cpu']}, {machine['cores']} {cores}, "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, {machine['python']}"
        f"{figures and '; ' + figures}; load of the machine when the run began: {machine['load']}."
    )


def _cpu() -> str:
    """The model by its name, or, where a hypervisor hides that, by vendor, family and number."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    name = fields.get("model name", platform.machine())
    if "cpu family" not in fields:
        return name
    return (
        f"{name} (family {fields['cpu family']}, model {fields['model']}, {fields.get('cpu MHz', '?')} MHz)"
    )
