"""Video files, one frame at a time: read, and written at the same size and rate.

Frames are uint8 RGB ``[H, W, 3]``.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

# FFmpeg would print its own view of a broken file; read when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from files.atomic import replacing
from ops.errors import InputError

USUAL_RATE = 25.0  # frames a second, for files that state none


@dataclass(frozen=True)
class Video:
    """A video that is being read.

    Attributes:
        size: (height, width) of every frame, as shown upright.
        rate: frames a second.
        count: how many frames the file says it has, 0 where it does not say; some files err.
        frames: each once.
    """

    size: tuple[int, int]
    rate: float
    count: int
    frames: Iterator[np.ndarray]


@contextlib.contextmanager
def reading_video(path: Path) -> Iterator[Video]:
    """Open a video whose frames are decoded as they are asked for.

    Raises:
        InputError: the file is no video, or not a single frame of it decodes.
    """
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise InputError(
                f"{path}: no video that can be read (damaged, empty or of an unknown kind) and no "
                "image; replace the file or leave it out"
            )
        frames = _frames(capture)
        first = next(frames, None)
        if first is None:
            raise InputError(f"{path}: a video without a frame; replace the file or leave it out")
        rate = capture.get(cv2.CAP_PROP_FPS)
        yield Video(
            size=(first.shape[0], first.shape[1]),
            rate=rate if 0 < rate < 1000 else USUAL_RATE,
            count=max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0),
            frames=itertools.chain([first], frames),
        )
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def video_ending(size: tuple[int, int]) -> str:
    """The kind of file that holds frames of `size` (height, width) whole.

    MPEG-4 drops the last row or column of an odd size; Motion JPEG keeps it.
    """
    return ".avi" if size[0] % 2 or size[1] % 2 else ".mp4"


@contextlib.contextmanager
def writing_video(
    path: Path, *, size: tuple[int, int], rate: float
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a frame; the file is there, whole, once the block ends.

    Args:
        path: ends as `video_ending` says.
        size: (height, width) of every frame.
        rate: frames a second.

    Raises:
        InputError: the file cannot be written, or a frame is of another size.
    """
    motion_jpeg = path.suffix == ".avi"
    code = cv2.VideoWriter.fourcc(*("MJPG" if motion_jpeg else "mp4v"))
    backend = cv2.CAP_OPENCV_MJPEG if motion_jpeg else cv2.CAP_FFMPEG
    with replacing(path) as temporary:
        partial = temporary.with_name(f"{temporary.name}{path.suffix}")  # its ending says its kind
        writer = cv2.VideoWriter(str(partial), backend, code, rate, (size[1], size[0]))
        try:
            if not writer.isOpened():
                raise InputError(f"{path}: cannot write a video there; choose another --output")

            def write(frame: np.ndarray) -> None:
                if frame.shape[:2] != size:
                    raise InputError(
                        f"{path}: a frame of {frame.shape[1]} x {frame.shape[0]} in a video of "
                        f"{size[1]} x {size[0]}; split the video where its size changes"
                    )
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

            yield write
            writer.release()
            if motion_jpeg:
                _state_rate(partial, rate)
            partial.replace(temporary)
        finally:
            writer.release()
            partial.unlink(missing_ok=True)


def _state_rate(path: Path, rate: float) -> None:
    """Put the exact rate into an AVI file's headers: OpenCV's Motion JPEG rounds it."""
    exact = Fraction(rate).limit_denominator(1001)
    with path.open("r+b") as file:
        head = file.read(4096)
        main, stream = head.find(b"avih"), head.find(b"strh")
        if main < 0 or stream < 0:
            return
        # avih: name, size, microseconds a frame. strh: name, size, five words of four bytes, then
        # scale and rate, whose quotient is the frames a second.
        file.seek(main + 8)
        file.write(round(1e6 / rate).to_bytes(4, "little"))
        file.seek(stream + 28)
        file.write(exact.denominator.to_bytes(4, "little") + exact.numerator.to_bytes(4, "little"))
