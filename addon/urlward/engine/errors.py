"""Errors that urlward raises on purpose.

One base, so that the command line can turn any of them into one clear line; each child carries the
data that its caller needs and nothing that could name an entry.
"""


class UrlwardError(Exception):
    """Base of all errors that are somebody's input, not a bug."""


class UrlError(UrlwardError):
    """A URL, host or port that no canonical form exists for."""


class EntryError(UrlwardError):
    """A list line that is not an entry.

    Attributes:
        column: 1-based position of the fault in the line.
        reason: what is wrong, without the entry's text.
        hint: what to write instead, or an empty string.
    """

    def __init__(self, column: int, reason: str, hint: str = "") -> None:
        super().__init__(f"column {column}: {reason}" + (f" ({hint})" if hint else ""))
        self.column = column
        self.reason = reason
        self.hint = hint


class KeyFileError(UrlwardError):
    """A key that is missing, unreadable or of the wrong size."""


class ArtifactError(UrlwardError):
    """Base of the errors of a damaged or unfit artifact."""


class NewerVersionError(ArtifactError):
    """The artifact was written in a format version that this release cannot read."""

    def __init__(self, found: int, supported: int) -> None:
        super().__init__(f"format version {found}, this release reads up to {supported}: update urlward")
        self.found = found
        self.supported = supported


class TruncatedError(ArtifactError):
    """The artifact is shorter, or longer, than its header says."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"{found} bytes where the header says {expected}: copy or fetch it again")
        self.found = found
        self.expected = expected


class DamagedError(ArtifactError):
    """The checksum, or a section, does not fit its content."""


class WrongKeyError(ArtifactError):
    """The artifact was compiled under another key."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"compiled under key {expected}, the key given is {found}")
        self.found = found
        self.expected = expected


class UnsignedError(ArtifactError):
    """The artifact bears no signature."""

    def __init__(self) -> None:
        super().__init__("not signed")


class SignatureError(ArtifactError):
    """The signature is not one of the key that the artifact names over what it says.

    Attributes:
        signer: the public key it names, in hexadecimal.
    """

    def __init__(self, signer: str) -> None:
        super().__init__(f"its signature is not one of the key it names, {signer[:16]}…: fetch it again")
        self.signer = signer


class RotationError(UrlwardError):
    """A statement that is no valid rotation of a signing key, or contradicts another."""
