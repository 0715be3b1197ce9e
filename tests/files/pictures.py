"""Invented pictures and video: coloured patches, no two alike."""

import io
from collections.abc import Sequence
from functools import lru_cache

import pytest

# Of the extra files, which not all who run tests have.
av = pytest.importorskip("av")
pytest.importorskip("pdqhash")
pytest.importorskip("threatexchange")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402


def picture(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A picture: large soft patches and some small ones."""
    return _picture(seed, size).copy()


@lru_cache(maxsize=16)
def _picture(seed: int, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    fine = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(large, Image.fromarray(fine).resize(size, Image.Resampling.BICUBIC), 0.35)


def _with_palette(image: Image.Image) -> Image.Image:
    if image.mode != "RGB":
        return image
    return image.quantize(palette=image.quantize(method=Image.Quantize.FASTOCTREE))


def written(image: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    """A picture's file, made soon rather than small."""
    if name == "PNG":
        options.setdefault("compress_level", 1)
    if name == "GIF":
        image, *more = map(_with_palette, [image, *options.pop("append_images", ())])  # type: ignore[misc]
        options["append_images"] = more
    made = io.BytesIO()
    image.save(made, name, **options)
    return made.getvalue()


def video(
    images: Sequence[Image.Image],
    muxer: str = "mp4",
    codec: str = "mpeg4",
    *,
    options: dict[str, str] | None = None,
    seconds: int = 2,
) -> bytes:
    """A video that shows each picture for so long, with a key frame at its beginning."""
    made, rate = io.BytesIO(), 5
    with av.open(made, "w", format=muxer, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.gop_size = rate * seconds
        stream.thread_count = 1
        for image in images:
            for _ in range(rate * seconds):
                for packet in stream.encode(av.VideoFrame.from_image(image)):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return made.getvalue()


def tracks(images: Sequence[Image.Image], muxer: str = "mp4", codec: str = "mpeg4") -> bytes:
    """A video with a track for each picture, which it shows for three seconds."""
    made, rate = io.BytesIO(), 5
    with av.open(made, "w", format=muxer) as container:
        streams = []
        for image in images:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = image.size
            stream.pix_fmt, stream.bit_rate, stream.thread_count = "yuv420p", 2_000_000, 1
            stream.codec_context.gop_size = rate
            streams.append(stream)
        for _ in range(3 * rate):
            for stream, image in zip(streams, images, strict=True):
                for packet in stream.encode(av.VideoFrame.from_image(image)):
                    container.mux(packet)
        for stream in streams:
            for packet in stream.encode():
                container.mux(packet)
    return made.getvalue()


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
"""Options of MP4 as live streams have it."""
