"""Encoded images: what is one, and its pixels, the same in the check of a value and in every transform graph."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

# Largest image, in pixels and encoded bytes: a few bytes of PNG can hold any number of pixels of one colour.
MOST_PIXELS, MOST_BYTES = 25_000_000, 16 << 20
FORMATS = ("JPEG", "PNG")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_HEADS = (_JPEG, _PNG)
# Marker before each scan of a JPEG: a few bytes that go over all pixels once more.
_SCAN, MOST_SCANS = b"\xff\xda", 100
# Images that are decoded at once.
_PARALLEL = 2


def is_image(value: bytes) -> bool:
    """Returns whether bytes begin as a JPEG or PNG does; no text in UTF-8 does."""
    return value.startswith(_HEADS)


def fault(value: bytes, channels: int, *, decode: bool = True) -> str:
    """Returns what a column must hold and these bytes are not; empty for an image that the transform graph decodes.

    Args:
        value: encoded image.
        channels: 1 (grey) or 3 (red, green, blue).
        decode: whether to decode it, which imports TensorFlow; otherwise the header alone is checked.
    """
    if not is_image(value):
        return "must hold JPEG or PNG images"
    if len(value) > MOST_BYTES:
        return f"must hold images of at most {MOST_BYTES:,} bytes"
    if value.startswith(_JPEG) and value.count(_SCAN) > MOST_SCANS:
        return f"must hold JPEG images of at most {MOST_SCANS} scans"
    count = pixel_count(value)
    if count > MOST_PIXELS:
        return f"must hold images of at most {MOST_PIXELS:,} pixels"
    return "" if count and (not decode or _decodes(value, channels)) else "must hold complete images"


def pixel_count(value: bytes) -> int:
    """Returns the number of pixels that the header of encoded bytes names, 0 if they are no image, without decoding it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(value), formats=FORMATS) as image:
            return math.prod(image.size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return MOST_PIXELS + 1
    except (OSError, SyntaxError, ValueError):  # Pillow's errors of a broken header
        return 0


def _decodes(value: bytes, channels: int) -> bool:
    import tensorflow as tf

    try:
        # On the CPU, where the transform graph decodes, too.
        with tf.device("CPU"):
            tf.io.decode_image(value, channels=channels, expand_animations=False)
    except tf.errors.OpError:
        return False
    return True


def pixels(values: Any, shape: Sequence[int]) -> Any:
    """Returns the pixels of encoded images, resized (bilinear, antialiased), as a float32 tensor (B, H, W, C) from 0 to 1.

    Args:
        values: string tensor (B,). The empty text gives a black image.
        shape: (H, W, C); C is 1 (grey) or 3 (red, green, blue).
    """
    import tensorflow as tf

    height, width, channels = shape

    def one(value: Any) -> Any:
        decoded = tf.io.decode_image(value, channels=channels, expand_animations=False)
        decoded = tf.ensure_shape(decoded, (None, None, channels))
        return tf.image.resize(decoded, (height, width), antialias=True) / 255.0

    def of_one(value: Any) -> Any:
        black = tf.zeros((height, width, channels), tf.float32)
        return tf.ensure_shape(tf.cond(tf.equal(value, ""), lambda: black, lambda: one(value)), (height, width, channels))

    signature = tf.TensorSpec((height, width, channels), tf.float32)
    return tf.map_fn(of_one, values, fn_output_signature=signature, parallel_iterations=_PARALLEL)
