"""``[files]``: known files, recognised in what passes by their digests."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from urlward.config.tables import SHAREABLE, Bytes, Seconds, Table

_TYPE = re.compile(r"\*|[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/(?:\*|[a-z0-9][a-z0-9!#$&^_.+-]{0,126})").fullmatch
_FUNCTION = re.compile(r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII).fullmatch


def _types(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if _TYPE(value) is None:
            raise ValueError(
                f"{value!r} is no media type in small letters, such as image/png, image/* or * for all"
            )
    return values


def _function(name: str) -> str:
    if _FUNCTION(name) is None:
        raise ValueError(f"{name!r} is no function, such as package.module:function")
    return name


class FilesTable(Table):
    """``[files]``; its presence has what passes compared with the digests that lists in force have.

    Attributes:
        exact: whether SHA-256, SHA-1 and MD5 digests are compared.
        max_size: bytes of a body, with its content coding undone, up to which it is hashed.
        types: media types of bodies that are looked at: ``type/subtype``, ``type/*`` or ``*``.
        action: what follows an exact match: ``cut`` (and learn), ``learn`` or ``alert``.
        pictures: what follows a perceptual match in a picture or video; ``off`` for no such comparison.
        learn_days: days for which the URL of a match is an own entry; 0 for never.
        learn_folders: whether of a stream in segments its folder is learned, and all that is in it.
        max_picture: bytes of a picture, or of what is looked at of a video at once, up to which it is
            decoded.
        video: whether key frames of videos are compared too.
        processes: that decode pictures, each in a sandbox.
        sandbox: whether that needs all of the sandbox; else it is done with what of it the machine has.
        deadline: seconds that decoding and comparing one picture may take.
        queue: pictures that may wait for that; more are passed over, and counted.
        classifier: ``package:function`` of an institution's own, called in the sandbox; empty for none.
        classifier_threshold: score from which on what it says is an alarm.
    """

    exact: bool = True
    max_size: Annotated[Bytes, Field(ge=1 << 10, le=1 << 40)] = 64 << 20
    types: Annotated[
        tuple[str, ...], SHAREABLE, Field(strict=False, min_length=1), AfterValidator(_types)
    ] = (
        "image/*", "video/*", "audio/*", "application/octet-stream", "application/zip", "application/pdf",
    )  # fmt: skip
    action: Literal["cut", "learn", "alert"] = "cut"
    pictures: Literal["off", "alert", "learn", "cut"] = "off"
    learn_days: Annotated[int, Field(ge=0, le=366)] = 7
    learn_folders: bool = False
    max_picture: Annotated[Bytes, Field(ge=1 << 10, le=1 << 28)] = 16 << 20
    video: bool = True
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    sandbox: bool = True
    deadline: Annotated[Seconds, Field(gt=0, le=60)] = 5.0
    queue: Annotated[int, Field(ge=1, le=10_000)] = 64
    classifier: Annotated[str, AfterValidator(_function)] = ""
    classifier_threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=False)] = 0.9

    @property
    def inspects(self) -> bool:
        """Whether pictures are decoded at all."""
        return self.pictures != "off" or bool(self.classifier)
