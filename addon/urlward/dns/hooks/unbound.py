"""Hook for Unbound: hands answers that may concern urlward's lists to urlward, before a client has them.

In unbound.conf, with the package python3-unbound:

    server:
        module-config: "python validator iterator"
    python:
        python-script: "/usr/share/urlward/hooks/unbound.py"

``URLWARD_HOOK`` in Unbound's environment names the folder that is `gateway.hook.folder` in urlward's
configuration, where it is not the one below. Needs nothing but Python's standard library and OpenSSL's.
"""

import ctypes
import os
import re
import select
import socket
import struct
import threading
import time
from binascii import unhexlify
from pathlib import Path
from zlib import crc32

FOLDER = Path(os.environ.get("URLWARD_HOOK", "/var/lib/urlward-hook"))
FILTER, KEY, SOCKET = "filter", "key", "socket"

LOOK = 0.5
"""Seconds between two looks at whether the filter is another, and until urlward is tried again."""

SAY = 60.0
"""Seconds between two lines in the log of one kind."""

FAILURES = 3
"""In a row, after which urlward is left alone until `LOOK` is over."""

_HEADER = struct.Struct("<8sIII12s")
_NUMBERS = struct.Struct("<6I")
_PLAIN = re.compile(rb"(?:[a-z0-9_\-]+\.)*(?!0x)[a-z0-9_\-]*[a-z_\-]").fullmatch
_PLAIN_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_RRSIG = 46
_ALIASES = frozenset(map(socket.htons, (5, 39)))
"""CNAME and DNAME, as Unbound has types."""

_SERVICES = frozenset(map(socket.htons, (64, 65)))
"""SVCB and HTTPS."""

_KNOWN = 65_536
"""Names whose finding is kept."""

_SERVFAIL, _NXDOMAIN = 2, 3
_LONGEST = 0xFFFF
_MOST = _LONGEST - 17
"""Bytes of an answer that can be handed over, beside a client's address."""

_SECURE, _INDETERMINATE = 5, 2
"""`enum sec_status` of Unbound."""


class NameFilter:
    """Which names may be listed; any, where no filter is there.

    Args:
        data: the content of one; `urlward.dns.hook_filter` in urlward has its form.
    """

    def __init__(self, data=None):
        self.settle, self.closed = 0.005, False
        self._any = data is None
        self._suffixes = self._names = frozenset()
        self._sieves = ()
        self._known = {}
        if data is None:
            return
        settle, closed, told, names, any_name, sieves = _NUMBERS.unpack_from(data)
        self.settle, self.closed, self._any = settle / 1e6, bool(closed), bool(any_name)
        at = _NUMBERS.size
        self._suffixes = frozenset(data[at : at + told].split())
        at += told
        self._names = frozenset(struct.unpack_from(f"<{names}I", data, at))
        at += 4 * names
        found = []
        for _ in range(sieves):
            (size,) = struct.unpack_from("<I", data, at)
            found.append((data[at + 4 : at + 4 + size], size * 8 - 1))
            at += 4 + size
        self._sieves = tuple(found)

    def may_list_name(self, name):
        """The same of a name in wire form."""
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[name] = self.may_list(host_of(name))
        return found

    def may_list(self, host):
        """Whether a host (small letters, no last dot) may be listed."""
        if not host:
            return False
        if self._any or not _PLAIN(host):
            return True
        if self._names and not self._names.isdisjoint(map(crc32, host.split(b"."))):
            return True
        while True:
            if host not in self._suffixes:
                value = crc32(host)
                second = value * 0x9E3779B1 >> 7
                for bits, mask in self._sieves:
                    slot = value & mask
                    if bits[slot >> 3] >> (slot & 7) & 1:
                        slot = second & mask
                        if bits[slot >> 3] >> (slot & 7) & 1:
                            return True
            host = host.partition(b".")[2]
            if not host:
                return False


def unsealed(data, key):
    """The content of a filter's file; ValueError where it is damaged or another's."""
    if len(data) < _HEADER.size:
        raise ValueError("too short")
    magic, version, size, checksum, nonce = _HEADER.unpack_from(data)
    if magic != b"URLWHOOK" or version != 1:
        raise ValueError("not a filter that this hook reads")
    sealed = data[_HEADER.size :]
    if len(sealed) != size or len(key) != 32:
        raise ValueError("not whole")
    found = _chacha20(sealed, key, nonce)
    if crc32(found) != checksum:
        raise ValueError("damaged, or sealed with another key")
    return found


def _chacha20(data, key, nonce):
    crypto = ctypes.CDLL("libcrypto.so.3")
    for name in ("EVP_CIPHER_CTX_new", "EVP_chacha20"):
        getattr(crypto, name).restype = ctypes.c_void_p
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    try:
        cipher, out, length = (
            ctypes.c_void_p(crypto.EVP_chacha20()),
            ctypes.create_string_buffer(len(data)),
            ctypes.c_int(),
        )
        if crypto.EVP_EncryptInit_ex(context, cipher, None, key, bytes(4) + nonce) != 1:
            raise ValueError("no ChaCha20 in libcrypto")
        if crypto.EVP_EncryptUpdate(context, out, ctypes.byref(length), data, len(data)) != 1:
            raise ValueError("not unsealed")
        return out.raw
    finally:
        crypto.EVP_CIPHER_CTX_free(context)


class OfThread:
    """State of one of Unbound's threads.

    Not `threading.local`: but for the main one these are no threads of Python's, and what that keeps would be
    gone with each call.
    """

    def __init__(self):
        self.connection = self.poll = None
        self.failures, self.away_until = 0, 0.0
        self.done = None


_of_threads = {}


def of_thread():
    """State of the thread that this is called in."""
    ident = threading.get_ident()
    if (found := _of_threads.get(ident)) is None:
        found = _of_threads[ident] = OfThread()
    return found


class Hook:
    """State that all threads of Unbound share."""

    def __init__(self, folder):
        self.filter = NameFilter()
        self._folder = folder
        self._header = b""
        self._bad = b""
        self._look_at = 0.0
        self._lock = threading.Lock()
        self._said = {}
        self._went_on = 0

    def look(self):
        """Take another filter, if there is one and it is time to look."""
        now = time.monotonic()
        if now < self._look_at or not self._lock.acquire(False):
            return
        try:
            self._look_at = now + LOOK
            self._take()
            outcome = "failed" if self.filter.closed else "went on"
            if self._went_on and self.say("passed", f"urlward: {self._went_on} answers {outcome} without it"):
                self._went_on = 0
        except (OSError, ValueError) as e:
            self.say("filter", f"urlward: {self._folder / FILTER}: {e}; the one before holds")
        finally:
            self._lock.release()

    def _take(self):
        with (self._folder / FILTER).open("rb") as file:
            header = file.read(_HEADER.size)
            if header in (self._header, self._bad):
                return
            data = header + file.read()
        key = unhexlify((self._folder / KEY).read_bytes().strip())
        try:
            self.filter = NameFilter(unsealed(data, key))
        except (ValueError, struct.error) as e:
            self._bad = header if len(header) == _HEADER.size and len(data) > len(header) else b""
            raise ValueError(str(e)) from e
        self._header, self._bad = header, b""

    def say(self, kind, line):
        """Log a line, one of a kind a minute; whether it was logged."""
        now = time.monotonic()
        if now < self._said.get(kind, 0.0):
            return False
        self._said[kind] = now + SAY
        log_err(line)
        return True

    def bug(self, e):
        """Log a fault of this hook by its place, without what it was about."""
        at = e.__traceback__
        while at.tb_next is not None:
            at = at.tb_next
        self.say("bug", f"urlward: a bug in its hook: {type(e).__name__} in line {at.tb_lineno}")

    def ask(self, client, message):
        """Hand an answer over.

        Returns ``P``, ``S`` or ``R``, and the message that takes its place (`urlward.dns.hook` in urlward);
        None where urlward has said nothing in time.
        """
        if len(message) > _MOST:
            return b"R", _failure(message)  # whoever runs a listed name can have it so
        own = of_thread()
        now = time.monotonic()
        if now >= own.away_until:
            try:
                frame = bytes([len(client)]) + client + message
                reply = self._exchange(own, struct.pack(">H", len(frame)) + frame, now + self.filter.settle)
                own.failures = 0
                return reply
            except (OSError, ValueError):
                own.failures += 1
                if own.failures >= FAILURES:
                    own.away_until = now + LOOK
                self._close(own)
        self._went_on += 1
        return None

    def _exchange(self, own, frame, until):
        connection = own.connection
        if connection is not None and own.poll.poll(0):
            self._close(own)  # it has ended, as where urlward has been restarted
            connection = None
        if connection is None:
            connection = own.connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(0)
            connection.connect(str(self._folder / SOCKET))
            own.poll = select.poll()  # Unbound has more descriptors than select() takes
            own.poll.register(connection, select.POLLIN)
        connection.settimeout(max(until - time.monotonic(), 1e-4))
        connection.sendall(frame)
        reply = b""
        while len(reply) < 2 or len(reply) < 2 + struct.unpack_from(">H", reply)[0]:
            connection.settimeout(max(until - time.monotonic(), 1e-4))
            more = connection.recv(_LONGEST + 2)
            if not more:
                raise ValueError("closed")
            reply += more
        if reply[2:3] not in (b"P", b"S", b"R"):
            raise ValueError("not a reply")
        return reply[2:3], reply[3:]

    @staticmethod
    def _close(own):
        connection, own.connection = own.connection, None
        if connection is not None:
            connection.close()


def _failure(message):
    """SERVFAIL in place of an answer without compression."""
    head = struct.pack(">5H", 0x8180 | _SERVFAIL, 1, 0, 0, 0)
    return message[:2] + head + message[12 : _end_of(message, 12) + 4]


def host_of(name):
    """The host that a name in wire form is."""
    labels, at = [], 0
    while name[at]:
        labels.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return b".".join(labels).lower()


def _first_name(data):
    """The name in wire form that some bytes begin with; one that may be any where they begin with none."""
    try:
        return data[: _end_of(data, 0)]
    except IndexError:
        return b"\1*\0"


def text_of(name):
    """A name in wire form as a zone file has it."""
    found, at = "", 0
    while name[at]:
        for byte in name[at + 1 : at + 1 + name[at]]:
            found += chr(byte) if byte in _PLAIN_BYTES else f"\\{byte:03}"
        found += "."
        at += 1 + name[at]
    return found or "."


def _end_of(data, at):
    while data[at]:
        at += 1 + data[at]
    return at + 1


def records_of(message):
    """The code of a message without compression, and its answer and authority sections as lines."""
    _, flags, _, answers, authorities, _ = struct.unpack_from(">6H", message)
    at = _end_of(message, 12) + 4
    sections = [], []
    for number in range(answers + authorities):
        end = _end_of(message, at)
        kind, _, ttl, size = struct.unpack_from(">HHIH", message, end)
        data = message[end + 10 : end + 10 + size]
        line = f"{text_of(message[at:end])} {ttl} IN TYPE{kind} \\# {size} {data.hex()}"
        sections[number >= answers].append(line)
        at = end + 10 + size
    return flags & 15, sections


def ttl_of(message):
    """The longest time of the answer of a message without compression, in seconds."""
    return max((int(line.split(" ", 2)[1]) for line in records_of(message)[1][0]), default=0)


hook = Hook(FOLDER)


def may_list(qname, rep):
    """Whether any name that an answer gives addresses of may be listed."""
    may = hook.filter.may_list_name
    if may(qname):
        return True
    if rep is None:
        return False
    answers, rrsets = rep.an_numrrsets, rep.rrsets
    additional = answers + rep.ns_numrrsets
    for i in range(rep.rrset_count):
        if answers <= i < additional:
            continue
        rrset = rrsets[i]
        key = rrset.rk
        name, kind = key.dname, key.type
        if name != qname and may(name):
            return True
        if kind in _ALIASES and may(rrset.entry.data.rr_data[0][2:]):
            return True
        if kind in _SERVICES:
            data = rrset.entry.data
            if any(may(_first_name(data.rr_data[j][4:])) for j in range(data.count)):
                return True
    return False


def message_of(qinfo, rep, rcode, signed=False, since=0):
    """An answer as a DNS message.

    Its times are counted from `since`, seconds since 1970-01-01 UTC: those in the cache are points in time.
    """
    parts, counts = [], [0, 0, 0]
    if rep is not None:
        rcode = rep.flags & 15
        ends = rep.an_numrrsets, rep.an_numrrsets + rep.ns_numrrsets
        for i in range(rep.rrset_count):
            key, data = rep.rrsets[i].rk, rep.rrsets[i].entry.data
            kind = socket.ntohs(key.type)
            for j in range(data.count + (data.rrsig_count if signed else 0)):
                content = data.rr_data[j]
                head = struct.pack(
                    ">HHI", kind if j < data.count else _RRSIG, 1, max(data.rr_ttl[j] - since, 0)
                )
                parts.append(key.dname + head + content)
                counts[(i >= ends[0]) + (i >= ends[1])] += 1
    head = struct.pack(">6H", 0, 0x8180 | rcode, 1, *counts)
    return head + qinfo.qname + struct.pack(">HH", qinfo.qtype, 1) + b"".join(parts)


def _clients(qstate):
    reply = qstate.mesh_info.reply_list if qstate is not None else None
    while reply:
        yield reply
        reply = reply.next


def _packed(info):
    """The address of a client, as Unbound says it of a query; empty where it does not."""
    try:
        text = info.addr
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text.partition("%")[0])
    except (AttributeError, OSError, TypeError):
        return b""


def init_standard(id, env):
    """Called by Unbound at its start."""
    hook.look()
    return bool(
        register_inplace_cb_reply_cache(from_cache, env, id) and register_inplace_cb_reply(leaves, env, id)
    )


def deinit(id):
    """Called by Unbound at its end."""
    return True


def inform_super(id, qstate, superqstate, qdata):
    """Called by Unbound; there is nothing to do."""
    return True


def from_cache(qinfo, qstate, rep, rcode, edns, opt_list_out, region, **others):
    """An answer is about to leave from the cache, where it cannot be changed: its addresses are steered."""
    hook.look()
    try:
        if not may_list(qinfo.qname, rep):
            return True
        now = int(time.time())
        reply = hook.ask(_packed(others.get("repinfo")), message_of(qinfo, rep, rcode, since=now))
        if not _may_leave(reply):
            _empty(rep)
            rep.ttl = 0  # so that `operate` has the next
        elif reply is not None and reply[0] == b"S" and rep.ttl - now > ttl_of(reply[1]):
            rep.ttl = 0  # it is as the authority has it
    except Exception as e:  # noqa: BLE001 - Unbound would go on as without this hook
        hook.bug(e)
        _empty(rep)
        rep.ttl = 0
    return True


def leaves(qinfo, qstate, rep, rcode, edns, opt_list_out, region, **others):
    """An answer is about to leave: one that `operate` has not seen (as an expired one) is handed over."""
    try:
        if rep is None or of_thread().done == int(rep.this) or not may_list(qinfo.qname, rep):
            return True
        if not _may_leave(hook.ask(_packed(others.get("repinfo")), message_of(qinfo, rep, rcode))):
            _empty(rep)
    except Exception as e:  # noqa: BLE001 - Unbound would go on as without this hook
        hook.bug(e)
        _empty(rep)
    return True


def _empty(rep):
    """Make a failure of an answer that leaves now. How many records it has in all stays, to be freed."""
    rep.flags = rep.flags & ~15 | _SERVFAIL
    rep.an_numrrsets = rep.ns_numrrsets = rep.ar_numrrsets = 0


def _may_leave(reply):
    """Whether an answer may leave that cannot be changed any more."""
    return not hook.filter.closed if reply is None else reply[0] != b"R"


def operate(id, event, qstate, qdata):
    """Called by Unbound for each step of a query."""
    if event in (MODULE_EVENT_NEW, MODULE_EVENT_PASS):
        of_thread().done = None
        qstate.ext_state[id] = MODULE_WAIT_MODULE
        return True
    if event != MODULE_EVENT_MODDONE:
        qstate.ext_state[id] = MODULE_ERROR
        return True
    qstate.ext_state[id] = MODULE_FINISHED
    hook.look()
    try:
        clients = list(_clients(qstate))
        _take(qstate, clients)
    except Exception as e:  # noqa: BLE001 - Unbound would go on as without this hook
        hook.bug(e)
        _fail(qstate)
    # Where there is no message, an expired one may leave.
    of_thread().done = int(qstate.return_msg.rep.this) if qstate.return_msg else None
    return True


def _take(qstate, clients):
    message = qstate.return_msg
    rep = message.rep if message else None
    if not may_list(qstate.qinfo.qname, rep):
        return
    # Which clients want signatures Unbound does not tell here; it leaves them out for the others.
    signed = rep is not None and rep.security == _SECURE
    data = message_of(qstate.qinfo, rep, qstate.return_rcode, signed)
    reply = hook.ask(_packed(clients[0].query_reply) if clients else b"", data)
    if reply is None and hook.filter.closed and clients:
        _fail(qstate)
    if reply is None or reply[0] == b"P":
        return
    if reply[0] == b"R" and not clients:
        # Prefetched, or asked by Unbound itself, which needs it: as it is, it must not stay in the cache.
        if rep is not None:
            invalidateQueryInCache(qstate, qstate.qinfo)
        return
    code, (answer, authority) = records_of(reply[1])
    if code == _NXDOMAIN:
        _tell_others(clients, data)
    if code not in (0, _NXDOMAIN):
        _fail(qstate)
        return
    qinfo = qstate.qinfo
    if rep is not None:
        invalidateQueryInCache(qstate, qinfo)
    told = DNSMessage(text_of(qinfo.qname), qinfo.qtype, RR_CLASS_IN, PKT_QR | PKT_RA | PKT_RD)
    told.answer, told.authority = answer, authority
    if not told.set_return_msg(qstate):
        _fail(qstate)
        return
    rep = qstate.return_msg.rep
    rep.flags = rep.flags & ~15 | code
    rep.security = _INDETERMINATE
    qstate.return_rcode = 0
    # From the cache it leaves as it is there: where what an alias leads to is refused, nobody could tell.
    if code != _NXDOMAIN or hook.filter.may_list_name(qinfo.qname):
        storeQueryInCache(qstate, qinfo, rep, 0)


def _tell_others(clients, data):
    """Hand over an answer for all who wait for it: that it is refused is recorded of each."""
    until = time.monotonic() + hook.filter.settle
    for client in list(dict.fromkeys(_packed(one.query_reply) for one in clients))[1:]:
        if time.monotonic() >= until or hook.ask(client, data) is None:
            return


def _fail(qstate):
    qstate.return_msg = None
    qstate.return_rcode = _SERVFAIL
