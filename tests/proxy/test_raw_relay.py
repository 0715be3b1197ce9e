from proxy.test_relay import Ends
from urlward.proxy.names import Names
from urlward.proxy.raw_relay import RawRelay


def test_a_raw_relay() -> None:
    ends = Ends()
    relay = RawRelay(ends, Names(("a.test",), (443,), "", ""))
    relay.client_data(b"a")
    relay.server_data(b"b")
    assert (ends.server, ends.client) == (b"a", b"b")
    relay.server_ended()
    relay.client_data(b"c")
    relay.client_ended()
    assert (ends.server, ends.asked) == (b"ac", ["end client", "close"])


def test_what_came_before_the_connection() -> None:
    ends = Ends()
    relay = RawRelay(ends, Names(("a.test",), (443,), "", ""), b"early")
    relay.connected()
    relay.connected()
    assert (ends.server, relay.endless, relay.idle, relay.head) == (b"early", True, False, None)
    relay.not_connected()
    assert ends.asked == ["close"]
