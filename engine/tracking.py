"""The record of a run: TensorBoard events, and every scalar exactly in ``metrics.jsonl``.

TensorBoard shows a sample of long curves; the JSON lines are complete. Tags: ``train/loss`` and
``train/loss_*``, ``train/lr``, ``train/data_seconds``, ``train/step_seconds``, ``val/...`` and the
figures of evaluation (``bbox/AP`` ...) under their own names; ``pr/<kind>/IoU<50 or 75>`` are
precision-recall curves. The run's hyperparameters stand in its own event file, without a sub-run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from engine import dashboard
from engine.coco_eval import NO_OBJECTS
from engine.run_folder import dump_json, write_text

HISTORY = "metrics.jsonl"
FAILED = ".failed"


class Tracker:
    """Writes one run's scalars, pictures and texts into its folder."""

    def __init__(self, folder: Path, *, start_step: int = 0, active: bool = True) -> None:
        """Begin the record, or go on with it.

        Args:
            folder: the run's folder.
            start_step: steps done by the checkpoint that the run resumes from. What an interrupted
                run recorded after them is dropped, since it will be recorded again.
            active: False (every rank but the first) writes nothing.
        """
        self._events: SummaryWriter | None = None
        self._history: IO[str] | None = None
        self._folder = folder
        self._ended = False
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(f"events.out.tfevents.*{FAILED}"):
            earlier.unlink()
        _keep_history(folder / HISTORY, start_step)
        self._history = (folder / HISTORY).open("a", encoding="utf-8")
        interrupted = any(folder.glob("events.out.tfevents.*"))
        first_again = start_step + 1 if start_step else 0
        self._events = SummaryWriter(
            str(folder), purge_step=first_again if interrupted else None, flush_secs=30
        )

    def session(self, hyperparameters: Mapping[str, dashboard.Value], group: str) -> None:
        """Record the run's settings; runs that share `group` (a cell's seeds) are averaged."""
        self._summary(dashboard.session_start(hyperparameters, group), 0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers after `step` steps, each under its tag.

        COCO's mark for a figure over no objects is no number to draw: the JSON lines alone have it.
        """
        if self._events is None or self._history is None:
            return
        numbers = {tag: float(value) for tag, value in values.items()}
        for tag, value in numbers.items():
            if not (value == NO_OBJECTS and tag.startswith(("bbox/", "segm/"))):
                self._events.add_scalar(tag, value, step)
        self._history.write(dump_json({"step": step, **numbers}) + "\n")
        self._history.flush()

    def images(self, tag: str, pictures: Sequence[np.ndarray], step: int) -> None:
        """Record pictures, uint8 RGB ``[H, W, 3]`` of any sizes, as ``tag/0``, ``tag/1``, ..."""
        if self._events is None:
            return
        for index, picture in enumerate(pictures):
            value = Summary.Value(tag=f"{tag}/{index}", image=_encoded(picture))
            self._summary(Summary(value=[value]), step)

    def pr_curves(self, precision: Mapping[str, np.ndarray], step: int) -> None:
        """Record precision against recall; see `engine.dashboard.pr_curves`."""
        self._summary(dashboard.pr_curves(precision), step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Record a text in Markdown."""
        if self._events is not None:
            self._events.add_text(tag, text, step)

    def finish(self) -> None:
        """Record that the run succeeded, and close the files."""
        self._summary(dashboard.session_end(success=True), 0)
        self._ended = True
        self.close()

    def close(self) -> None:
        """Write out what is pending and close the files."""
        if self._events is not None:
            self._events.close()
        if self._history is not None:
            self._history.close()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close()
        if error is not None and self._events is not None and not self._ended:
            # TensorBoard keeps the first ending that it reads of a run: this one is a file of its
            # own, which goes when the run goes on.
            ending = dashboard.session_end(success=False)
            dashboard.write_events(self._folder, [ending], FAILED)

    def _summary(self, summary: Summary, step: int) -> None:
        if self._events is not None:
            self._events._get_file_writer().add_summary(summary, step)


def _encoded(picture: np.ndarray) -> Summary.Image:
    """JPEG at full colour resolution: a tenth of the PNG that `SummaryWriter.add_image` stores."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], quality + colour)
    height, width = picture.shape[:2]
    return Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=data.tobytes()
    )


def read_history(path: Path) -> Iterator[dict[str, float | None]]:
    """The records of a ``metrics.jsonl``: "step" and tags; null where a number was not finite.

    A last line cut short by a kill is left out.
    """
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _keep_history(path: Path, start_step: int) -> None:
    """Drop the records of steps that will be done again: all of them when starting from 0."""
    if not path.exists():
        return
    kept = [r for r in read_history(path) if start_step and (r["step"] or 0) <= start_step]
    write_text(path, "".join(dump_json(record) + "\n" for record in kept))
