"""Image files of any depth, channels or orientation into pixels, decoded by OpenCV."""

import contextlib
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
_EXIF_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """Decode an image file and check its size.

    Grayscale becomes three equal channels, 16 bits are scaled to 8 (65535 -> 255), an alpha channel
    is dropped without blending (as Pillow converts to RGB), and the EXIF orientation is applied, as
    in detectron2.

    Args:
        size: (height, width) according to the annotations, after the EXIF orientation.

    Returns:
        uint8 RGB ``[3, H, W]``, a view of channels-last memory.

    Raises:
        InputError: the file is missing, does not decode, is cut short, or is of another size.
    """
    data = _content(path)
    _check_header_size(path, data, size)
    pixels = _decoded(path, data)
    _check_size(path, (pixels.shape[0], pixels.shape[1]), size)
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
        with contextlib.suppress(cv2.error):  # some codecs raise where others return None
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise InputError(
            f"{path}: does not decode (damaged, cut short or of a format unknown to OpenCV); "
            f"replace the file or leave it out"
        )
    return cv2.cvtColor(_to_8_bits(pixels, path), cv2.COLOR_BGR2RGB)


def pictures_in(path: Path) -> int:
    """How many pages or frames a file has, of which `decode` takes the first; 1 if unsaid."""
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1


def header_size(path: Path) -> tuple[int, int]:
    """(height, width) in a file's header, EXIF orientation applied; few kinds need decoding.

    Raises:
        InputError: as `decode`, except that damage after the header is not noticed.
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
        height, width = decode(path).shape[:2]  # OpenCV may read what Pillow cannot
    return height, width


def check_header(path: Path, size: tuple[int, int]) -> None:
    """Raise InputError unless `header_size` is `size`."""
    _check_size(path, header_size(path), size)


def _check_header_size(path: Path, data: bytes, size: tuple[int, int]) -> None:
    """Raise InputError if the header states another size, before anything is decoded.

    A file of some kilobytes can hold a billion pixels. Width and height may be exchanged here: the
    decoder applies the orientation.
    """
    if data.startswith(b"\x89PNG"):
        stated = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    else:
        try:
            with Image.open(io.BytesIO(data)) as image:
                stated = image.size[1], image.size[0]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return  # OpenCV may read what Pillow cannot
    if sorted(stated) != sorted(size):
        _check_size(path, stated, size)


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: libjpeg would fill the missing part with grey."""
    if data.startswith(b"\xff\xd8"):
        return not _reaches_end_of_jpeg(data)
    return data.startswith(b"\x89PNG") and b"IEND" not in data


# Inside compressed pixels 0xFF is followed by 0 (for a byte of 0xFF) or by a restart marker only.
_MARKER_AFTER_PIXELS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _reaches_end_of_jpeg(data: bytes) -> bool:
    """Whether the image's markers lead to its end; cameras may append more data after it."""
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
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without content
            continue
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
        if marker == 0xDA:
            following = _MARKER_AFTER_PIXELS.search(data, at)
            if following is None:
                return False
            at = following.start()


def _to_8_bits(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise InputError(
        f"{path}: pixels of type {pixels.dtype}; convert the image to 8 or 16 bits a channel"
    )


def _check_size(path: Path, actual: tuple[int, int], stated: tuple[int, int]) -> None:
    if actual == stated:
        return
    if actual == stated[::-1]:
        remedy = "rotate the annotations, or remove the file's EXIF orientation if it is wrong"
    else:
        remedy = "restore the original file or correct its `width` and `height`"
    raise InputError(
        f"{path}: is {actual[1]} x {actual[0]} pixels (width x height, EXIF orientation applied), "
        f"but its annotations state {stated[1]} x {stated[0]}; {remedy}"
    )
