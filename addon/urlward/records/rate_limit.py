"""Rate limit by key and in all. Time is an argument; memory is bounded."""

from collections import OrderedDict

_HOUR = 3600.0


class RateLimit:
    """Rate limit: token buckets that hold an hour's worth and fill evenly.

    Args:
        per_hour: of each key.
        per_hour_all: in all.
        keys: that are remembered. Where there are more, the one that asked longest ago is forgotten, which
            gives it a full bucket again; the limit in all stays.
    """

    def __init__(self, per_hour: int, per_hour_all: int, keys: int = 10_000) -> None:
        self._per_hour = per_hour
        self._all_per_hour = per_hour_all
        self._all = (float(per_hour_all), 0.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._keys = keys

    def take(self, key: str, now: float) -> float:
        """Take one token, where the limit allows it.

        Args:
            key: whose.
            now: seconds on a clock that does not go back.

        Returns:
            0.0 where it may be; else the seconds until it may, and nothing is taken.
        """
        own = _filled(self._buckets.get(key, (float(self._per_hour), now)), self._per_hour, now)
        everyone = _filled(self._all, self._all_per_hour, now)
        wait = max(_until_one(own, self._per_hour), _until_one(everyone, self._all_per_hour))
        if wait:
            return wait
        self._all = (everyone - 1, now)
        self._buckets[key] = (own - 1, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return 0.0


def _filled(bucket: tuple[float, float], per_hour: int, now: float) -> float:
    level, since = bucket
    return min(level + max(now - since, 0.0) * per_hour / _HOUR, float(per_hour))


def _until_one(level: float, per_hour: int) -> float:
    return max(1 - level, 0.0) * _HOUR / per_hour
