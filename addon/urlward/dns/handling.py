"""Answer handling: what becomes of a resolver's answer, whether urlward or a hook in the resolver sends it,
or the resolver has sent it and says so.

Nearly every answer is of names that no list says anything of, and passes as it is. For the others the
addresses are steered, and what clients are told is the policy's (`urlward.dns.policy`).
"""

from collections.abc import Sequence

from urlward.dns.answers import error
from urlward.dns.judge import WHOLE, Faults, Found, Judge
from urlward.dns.policy import Asker, DnsPolicy, Reason
from urlward.dns.resolved import Resolved
from urlward.dns.wire import SERVFAIL, Question, Scan


class Answers:
    """Handler of answers.

    Args:
        judge: knows what is listed.
        policy: what becomes of names that are.
        resolved: remembers.
        faults: are told what goes wrong.
    """

    def __init__(self, judge: Judge, policy: DnsPolicy, resolved: Resolved, faults: Faults) -> None:
        self._judge = judge
        self._policy = policy
        self._resolved = resolved
        self._faults = faults

    def reason(self, question: Question) -> Reason | None:
        """Reason why a resolver's answer does not count; see `DnsPolicy.reason`. Never raises."""
        try:
            return self._policy.reason(question)
        except Exception as e:  # noqa: BLE001 - a fault of ours must not keep anybody from a name
            self._faults.say(e, "a query is asked of a resolver, whatever a list says")
            return None

    def has_entry(self, host: str) -> bool:
        """Whether a host has an entry of any kind. Never raises."""
        return bool(self._judge.find((host,)))

    async def own(
        self, query: bytes, question: Question, reason: Reason, askers: Sequence[Asker]
    ) -> bytes | None:
        """The response to a query that the filter itself answers; see `DnsPolicy.own_answer`. Never raises.

        Returns:
            None where a fault leaves it to the resolver.
        """
        try:
            return await self._policy.own_answer(query, question, reason, askers)
        except Exception as e:  # noqa: BLE001 - as the operator says
            blocks = self._policy.blocks_on_error
            self._faults.say(e, f"a query {'fails' if blocks else 'is asked of a resolver'}")
            return error(query, SERVFAIL, question) if blocks else None

    def look(self, read: Scan) -> Found:
        """The lists' finding on an answer, which is remembered; where there is none, it passes as it is."""
        found = self._judge.find(read.hosts)
        self._remember(read, found)
        for host, _ in read.beside:
            found |= self._judge.find((host,))
        return found

    async def steer(
        self,
        query: bytes,
        question: Question,
        data: bytes,
        read: Scan,
        found: Found,
        size: int,
        askers: Sequence[Asker],
    ) -> bytes:
        """The response to a query once the addresses in it are steered. Never raises.

        Args:
            query: as sent.
            question: of it.
            data: as the resolver answers.
            read: what that says.
            found: as `look` gave it.
            size: most bytes that the client takes.
            askers: clients that have asked, for the log.
        """
        # What else the answer speaks of does not make it a listed host's.
        whole = bool(found & WHOLE and self._judge.find(read.chain) & WHOLE)
        try:
            if whole and self._policy.refuses and not self._judge.allows(read.chain[0]):
                return await self._policy.refuse(query, question, read.chain, askers)
            return await self._policy.answer(query, question, data, read, size)
        except Exception as e:  # noqa: BLE001 - as the operator says
            return self.despite(e, query, question, data, read.hosts)

    async def follow(self, read: Scan) -> None:
        """Steer the addresses of an answer that has left; see `DnsPolicy.follow`. Never raises."""
        try:
            await self._policy.follow(read)
        except Exception as e:  # noqa: BLE001 - nothing can be withheld any more
            self._faults.say(e, "addresses that clients have been told are not steered")

    def despite(
        self, fault: Exception, query: bytes, question: Question, data: bytes, hosts: tuple[str, ...] = ()
    ) -> bytes:
        """The response where a fault has prevented steering: what is not steered is not filtered.

        Args:
            fault: which.
            query: as sent.
            question: of it.
            data: as the resolver answered.
            hosts: that it speaks of; the question's alone where empty.
        """
        blocks = self._policy.blocks_on_error and bool(self._judge.find(hosts or (question.host,)))
        self._faults.say(fault, "an answer is withheld" if blocks else "an answer passes, not steered")
        return error(query, SERVFAIL, question) if blocks else data

    def _remember(self, read: Scan, found: Found) -> None:
        try:
            if read.four or read.six:
                self._resolved.remember(read.hosts, read.four, read.six, read.ttl, found)
            for host, address in read.beside:
                four, six = (address, b"") if len(address) == 4 else (b"", address)
                self._resolved.remember((host,), four, six, read.ttl, self._judge.find((host,)))
        except Exception as e:  # noqa: BLE001 - the answer counts for more
            self._faults.say(e, "an answer is not remembered")
