"""Reading and writing video files, one frame at a time. Frames are uint8 RGB ``[H, W, 3]``."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

# Keeps FFmpeg from printing its own messages about broken files; must be set before it is loaded.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from files.atomic import replacing
from ops.errors import InputError

USUAL_RATE = 25.0  # frames per second, for files that state none


@dataclass(frozen=True)
class Video:
    """A video that is being read.

    Attributes:
        size: (height, width) of every frame, upright.
        rate: frames per second.
        count: number of frames according to the file, which may be wrong; 0 if it states none.
        frames: can be iterated once.
    """

    size: tuple[int, int]
    rate: float
    count: int
    frames: Iterator[np.ndarray]


@contextlib.contextmanager
def reading_video(path: Path) -> Iterator[Video]:
    """Open a video, whose frames are decoded one by one.

    Raises:
        InputError: the file is no video, or no frame of it decodes.
    """
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise InputError(
                f"{path}: neither an image nor a video that can be read (damaged, empty or of an "
                "unknown format); replace the file or leave it out"
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
    """The ending of a video file for frames of `size` (height, width).

    MPEG-4 drops the last row or column of odd sizes; Motion JPEG (.avi) keeps it.
    """
    return ".avi" if size[0] % 2 or size[1] % 2 else ".mp4"


@contextlib.contextmanager
def writing_video(
    path: Path, *, size: tuple[int, int], rate: float
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a frame; the file is written atomically when the block ends.

    Args:
        path: with the ending of `video_ending`.
        size: (height, width) of every frame.
        rate: frames per second.

    Raises:
        InputError: the file cannot be written, or a frame is of another size.
    """
    motion_jpeg = path.suffix == ".avi"
    code = cv2.VideoWriter.fourcc(*("MJPG" if motion_jpeg else "mp4v"))
    backend = cv2.CAP_OPENCV_MJPEG if motion_jpeg else cv2.CAP_FFMPEG
    with replacing(path) as temporary:
        partial = temporary.with_name(f"{temporary.name}{path.suffix}")  # OpenCV needs the ending
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
                _write_exact_rate(partial, rate)
            partial.replace(temporary)
        finally:
            writer.release()
            partial.unlink(missing_ok=True)


def _write_exact_rate(path: Path, rate: float) -> None:
    """Correct the rate in an AVI file's headers, which OpenCV's Motion JPEG rounds."""
    exact = Fraction(rate).limit_denominator(1001)
    with path.open("r+b") as file:
        head = file.read(4096)
        main, stream = head.find(b"avih"), head.find(b"strh")
        if main < 0 or stream < 0:
            return
        # avih: name, size, microseconds per frame. strh: name, size, five words of four bytes, then
        # scale and rate; rate / scale is the number of frames per second.
        file.seek(main + 8)
        file.write(round(1e6 / rate).to_bytes(4, "little"))
        file.seek(stream + 28)
        file.write(exact.denominator.to_bytes(4, "little") + exact.numerator.to_bytes(4, "little"))
