"""DNS client of the lab: queries over UDP or TCP, to any address."""

from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rdtypes.svcbbase

_PARAMETERS = dns.rdtypes.svcbbase.ParamKey


def ask_dns(name: str, kind: str, server: str, *, tcp: bool = False, timeout: float = 5.0) -> dict[str, Any]:
    """Send one query.

    Args:
        name: spelt as it is sent, so that letter case and a trailing dot stay.
        kind: of the record, such as ``A``.
        server: address of the resolver.
        tcp: whether over TCP.
        timeout: seconds.

    Returns:
        ``rcode``, ``addresses``, ``ttl`` (the least of all records) and ``parameters`` (names of SVCB
        parameters, and the protocols of ``alpn``), or ``error``.
    """
    query = dns.message.make_query(name, kind)
    ask = dns.query.tcp if tcp else dns.query.udp
    try:
        reply = ask(query, server, timeout=timeout)
    except dns.exception.Timeout:
        return {"error": "timeout"}
    except dns.exception.DNSException as e:
        return {"error": _unreadable(e)}
    except ConnectionRefusedError:
        return {"error": "refused"}
    except (OSError, EOFError) as e:
        return {"error": str(getattr(e, "strerror", None) or "closed").lower()}
    addresses, parameters, ttls = [], set(), []
    for rrset in reply.answer:
        ttls.append(rrset.ttl)
        for record in rrset:
            if record.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                addresses.append(record.address)
            elif record.rdtype in (dns.rdatatype.HTTPS, dns.rdatatype.SVCB):
                parameters |= _parameters(record)
    return {
        "rcode": dns.rcode.to_text(reply.rcode()),
        "addresses": addresses,
        "records": len(reply.answer),
        "ttl": min(ttls, default=None),
        "parameters": sorted(parameters),
    }


def _unreadable(error: Exception) -> str:
    return f"unreadable answer: {type(error).__name__}"


def _parameters(record: Any) -> set[str]:
    found = set()
    for key, value in record.params.items():
        found.add(
            _PARAMETERS(key).name.lower().replace("_", "-") if key in list(_PARAMETERS) else f"key{key}"
        )
        if key == _PARAMETERS.ALPN:
            found |= {identifier.decode(errors="replace") for identifier in value.ids}
    return found
