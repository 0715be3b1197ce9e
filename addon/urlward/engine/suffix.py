"""Public suffixes, offline (https://publicsuffix.org, both its sections).

Only entries of the form ``name.*`` depend on the suffix list, so that two machines with suffix
lists of different dates agree on everything else.
"""

from functools import cache

from publicsuffixlist import PublicSuffixList


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def labels_before_suffix(host: str) -> tuple[str, ...]:
    """The labels of a canonical host in front of its public suffix, rightmost first.

    ``a.example.co.uk`` gives ``("example", "a")``; a host that is itself a suffix gives ``()``. A
    top-level domain the list does not know counts as a suffix (the list's own default rule).
    """
    suffix = _suffixes().publicsuffix(host)
    if suffix is None or len(suffix) >= len(host):
        return ()
    return tuple(reversed(host[: -len(suffix) - 1].split(".")))
