"""Proposals from other programs, in the pickle that detectron2 writes and Detectron wrote.

One mapping of lists, an entry an image: ``ids``, ``boxes`` (arrays ``[P, 4]``) and
``objectness_logits``; ``bbox_mode`` says how a box is written. Detectron's names are older.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.proposals import Record, damaged
from ops.errors import InputError
from ops.restricted_pickle import Refused, load_pickle

NAMES = {"ids": "indexes", "boxes": "boxes", "objectness_logits": "scores"}  # ours here: theirs
XYXY, XYWH = 0, 1  # detectron2's BoxMode of absolute coordinates


def read_detectron2(path: Path) -> list[Record]:
    """The proposals of each image in such a file, best first; runs nothing that it may carry.

    Raises:
        InputError: no such pickle, one that asks for more than arrays, entries that do not fit.
    """
    content = _load(path)
    columns = {name: content.get(name, content.get(old)) for name, old in NAMES.items()}
    for name, column in columns.items():
        if not isinstance(column, list | tuple | np.ndarray):
            raise damaged(path, f"no list `{name}`")
    lengths = [len(column) for column in columns.values()]
    if len(set(lengths)) > 1:
        raise damaged(path, f"{' / '.join(map(str, lengths))} entries of {' / '.join(columns)}")
    mode = content.get("bbox_mode", XYXY)
    if mode not in (XYXY, XYWH):
        raise InputError(
            f"{path}: bbox_mode={mode!r}; write the boxes as 0 (x1 y1 x2 y2) or 1 (x y w h), in "
            f"pixels"
        )
    entries = zip(*columns.values(), strict=True)
    return [_record(path, id_, boxes, scores, mode == XYWH) for id_, boxes, scores in entries]


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = load_pickle(path)
    except Refused as refused:
        raise InputError(
            f"{path}: asks for {refused}, which proposals do not need; refused, since loading it "
            f"could run code; write arrays alone"
        ) from refused
    except Exception as error:  # a damaged file fails anywhere in the reader
        raise damaged(path, type(error).__name__) from error
    if not isinstance(content, Mapping):
        raise damaged(path, f"a {type(content).__name__}")
    return content


def _record(path: Path, id_: Any, boxes: Any, scores: Any, is_xywh: bool) -> Record:
    try:
        image_id = int(str(id_))
        corners = np.array(boxes, dtype=np.float32)
        values = np.array(scores, dtype=np.float32).ravel()
    except (TypeError, ValueError) as error:
        raise damaged(path, f"image {id_!r}: {error}") from None
    if corners.shape != (len(values), 4) and corners.size + values.size:
        raise damaged(path, f"image {id_!r}: boxes {corners.shape}, scores {values.shape}")
    corners = corners.reshape(-1, 4)
    if is_xywh:
        corners[:, 2:] += corners[:, :2]
    return Record(image_id, corners, values).best_first()
