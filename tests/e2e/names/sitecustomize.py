"""Names for a filter under test: put on its PYTHONPATH, this makes reserved names resolve on loopback."""

import socket
from typing import Any

LEADS_TO = "127.0.0.1"
_FIXED = {"addressed.example": "127.0.0.9", "mixed-case.example": "127.0.0.1"}
_RESERVED = (".example", ".test")
_real = socket.getaddrinfo


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if isinstance(name, str):
        name = name.lower().rstrip(".")
        if name.endswith(_RESERVED):
            host = _FIXED.get(name, LEADS_TO)
        elif name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _real(host, *args, **kwargs)


socket.getaddrinfo = _getaddrinfo
