"""Invented pictures, and what becomes of a picture on its way through the web."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

SIZE = 400, 300
_SHAPES = 12


def picture(seed: int) -> Image.Image:
    """A picture with the spectrum of photographs (amplitude falls with frequency), and shapes on it."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1
    steepness = rng.uniform(0.9, 1.4)
    layers = []
    common = rng.standard_normal((height, width))
    for _ in range(3):
        noise = 0.8 * common + 0.4 * rng.standard_normal((height, width))
        layer = np.fft.irfft2(np.fft.rfft2(noise) / frequency**steepness, s=(height, width))
        layers.append((layer - layer.mean()) / layer.std())
    pixels = 128 + rng.uniform(35, 60) * np.stack(layers, axis=2)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(2, _SHAPES))):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(15, width // 3), rng.integers(15, height // 3)
        colour = (*map(int, rng.integers(0, 256, 3)), int(rng.integers(120, 256)))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x + w), int(y + h)), fill=colour)
    return image


def _written(image: Image.Image, name: str, quality: int) -> bytes:
    made = io.BytesIO()
    image.save(made, name, quality=quality)
    return made.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    return _written(image, "JPEG", 85)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Without so much of its width and height, half of it on each side."""
    x, y = (round(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def _scaled(image: Image.Image, share: float) -> Image.Image:
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


def _marked(image: Image.Image) -> Image.Image:
    """With letters in a corner, as sites put their name there."""
    marked = image.copy()
    at = marked.width - 120, marked.height - 22
    ImageDraw.Draw(marked, "RGBA").text(at, "pictures.example", fill=(255, 255, 255, 160), font_size=14)
    return marked


def _overwritten(image: Image.Image) -> Image.Image:
    """With letters all across."""
    marked = image.copy()
    for row in range(3):
        place, text = (10, 40 + 90 * row), "pictures.example   " * 3
        ImageDraw.Draw(marked, "RGBA").text(place, text, fill=(255, 255, 255, 110), font_size=26)
    return marked


def _branded(image: Image.Image) -> Image.Image:
    """With letters all across, and a logo in a corner that hides what is there."""
    marked = _overwritten(image)
    box = marked.width - 70, marked.height - 40, marked.width - 8, marked.height - 8
    ImageDraw.Draw(marked).rectangle(box, fill=(20, 20, 20))
    return marked


CHANGES: Mapping[str, Callable[[Image.Image], bytes]] = {
    "JPEG, quality 70": lambda image: _written(image, "JPEG", 70),
    "JPEG, quality 20": lambda image: _written(image, "JPEG", 20),
    "WebP, quality 50": lambda image: _written(image, "WEBP", 50),
    "scaled to a half": lambda image: _jpeg(_scaled(image, 0.5)),
    "scaled to double": lambda image: _jpeg(_scaled(image, 2.0)),
    "brighter by a quarter": lambda image: _jpeg(ImageEnhance.Brightness(image).enhance(1.25)),
    "grey": lambda image: _jpeg(image.convert("L")),
    "mirrored": lambda image: _jpeg(ImageOps.mirror(image)),
    "on its side": lambda image: _jpeg(image.transpose(Image.Transpose.ROTATE_90)),
    "watermark in a corner": lambda image: _jpeg(_marked(image)),
    "cropped by 2 %": lambda image: _jpeg(_cropped(image, 0.02)),
    "letters all across": lambda image: _jpeg(_overwritten(image)),
    "letters all across, and a logo": lambda image: _jpeg(_branded(image)),
    "cropped by 5 %": lambda image: _jpeg(_cropped(image, 0.05)),
    "cropped by 10 %": lambda image: _jpeg(_cropped(image, 0.10)),
}
"""What is done to a picture, by its name in the report."""

LIGHT = (*CHANGES,)[:11]
"""Changes after which PDQ is to know a picture; chosen after a trial with ten pictures."""
