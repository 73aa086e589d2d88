"""Image files into pixels: OpenCV decodes, whatever the depth, the channels or the orientation."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ops.errors import InputError

_EXIF_ORIENTATION = 0x0112
_EXIF_SIDEWAYS = (5, 6, 7, 8)  # the orientations that exchange width and height


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """Decode an image file and hold it against the size its annotations were made for.

    Grayscale becomes three equal channels, 16 bits are scaled to 8 (65535 -> 255), an alpha channel
    is dropped (the colour below it stays, as in Pillow's conversion to RGB), and the EXIF
    orientation is applied, as the COCO API's users and detectron2 do.

    Args:
        path: of the file; any name the file system can hold.
        size: (height, width) that the annotations state, after the EXIF orientation.

    Returns:
        uint8 RGB ``[3, H, W]``, a view of channels-last memory.

    Raises:
        InputError: the file is missing, cannot be decoded, is cut short, or is of another size.
    """
    data = _content(path)
    _check_stated_size(path, data, size)
    pixels = _decoded(path, data)
    if pixels.shape[:2] != size:
        raise _another_size(path, pixels.shape[:2], size)
    return torch.from_numpy(pixels).permute(2, 0, 1)  # [3, H, W]


def decode(path: Path) -> np.ndarray:
    """Decode an image file into uint8 RGB ``[H, W, 3]``; see `read_image`."""
    return _decoded(path, _content(path))


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would be read without end
            raise InputError(f"{path}: is no regular file; name an image")
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the image ({error.strerror}); restore the file"
        ) from None


def _decoded(path: Path, data: bytes) -> np.ndarray:
    pixels = None
    if data and not _is_cut_short(data):
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:  # some codecs raise where others return nothing
            pixels = None
    if pixels is None:
        raise InputError(
            f"{path}: does not decode (damaged, cut short or of a kind unknown to OpenCV); replace "
            f"the file or leave it out"
        )
    return cv2.cvtColor(_to_8_bits(pixels, path), cv2.COLOR_BGR2RGB)


def check_header(path: Path, size: tuple[int, int]) -> None:
    """Hold the size in a file's header against `size`, without decoding its pixels.

    Raises:
        InputError: as `read_image`, except that damage behind the header goes unseen.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "JPEG":
                if image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS:
                    width, height = height, width
            elif image.format != "PNG" or "exif" in image.info:
                height, width = decode(path).shape[:2]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        height, width = decode(path).shape[:2]  # what Pillow cannot open, OpenCV may
    if (height, width) != size:
        raise _another_size(path, (height, width), size)


def _check_stated_size(path: Path, data: bytes, size: tuple[int, int]) -> None:
    """InputError where the header states another size, before pixels of any number are decoded.

    A file of some kilobytes can hold a billion pixels. What orientation makes of width and height
    is left to the decoder.
    """
    if data.startswith(b"\x89PNG"):
        found = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    else:
        try:
            with Image.open(io.BytesIO(data)) as image:
                found = image.size[1], image.size[0]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return  # of a kind that OpenCV may know
    if sorted(found) != sorted(size):
        raise _another_size(path, found, size)


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: libjpeg would fill the missing part with grey."""
    if data.startswith(b"\xff\xd8"):
        return not _reaches_end_of_jpeg(data)
    return data.startswith(b"\x89PNG") and b"IEND" not in data


# In the compressed pixels 0xFF stands before 0 (a byte of 0xFF) and before restart marks alone.
_MARKER_AFTER_PIXELS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _reaches_end_of_jpeg(data: bytes) -> bool:
    """Whether the image's own marks lead to its end; cameras append videos and maps behind it."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":  # padding
            at += 1
        if at < 0 or at + 1 >= len(data):
            return False
        marker = data[at + 1]
        if marker == 0xD9:
            return True
        at += 2
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # marks without content
            continue
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
        if marker == 0xDA:
            found = _MARKER_AFTER_PIXELS.search(data, at)
            if found is None:
                return False
            at = found.start()


def _to_8_bits(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise InputError(
        f"{path}: pixels of type {pixels.dtype}; convert the image to 8 or 16 bits a channel"
    )


def _another_size(path: Path, found: tuple[int, int], stated: tuple[int, int]) -> InputError:
    (height, width), (stated_height, stated_width) = found, stated
    text = (
        f"{path}: is {width} x {height} pixels (width x height, EXIF orientation applied), "
        f"but its annotations state {stated_width} x {stated_height}; "
    )
    if (height, width) == (stated_width, stated_height):
        return InputError(
            text + "rotate the annotations, or remove the file's EXIF orientation if it is wrong"
        )
    return InputError(text + "restore the original file or correct its `width` and `height`")
