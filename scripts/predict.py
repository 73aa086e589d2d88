"""Find objects in any images and videos with a trained network.

    python scripts/predict.py photo.jpg --checkpoint outputs/RUN
    python scripts/predict.py photos/ "more/**/*.png" clip.mp4 --checkpoint RUN.pt --classes cat,dog

writes each image and video with its objects drawn over it into --output, with `detections.json`
(COCO's result format) and `images.json` (the categories, and the file and frame of each image_id).
A file that cannot be read is reported and skipped; the exit status is then 1, and 2 if nothing
could be predicted.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configuration import command_line
from data.images import decode, pictures_in
from data.sources import find_sources
from detector import Detector, load
from drawing.video import reading_video, video_ending, writing_video
from drawing.visualize import draw_detections
from files.atomic import make_folder, replacing, write_json, writing_list
from judging.results import coco_results
from ops.errors import InputError
from ops.structures import Category, Detections

STATED_WRONG = 0.02  # share of frames by which sound videos may state a wrong length
BELOW = 1e-6  # the network keeps scores above its threshold; this command also keeps equal ones

Detect = Callable[[np.ndarray], Detections]


@dataclass
class Predictions:
    """Writes results into a folder.

    Attributes:
        output: the folder.
        add: appends entries to detections.json.
        categories: of the detector.
        images: the entries of images.json.
        names: of the files in the folder, in lower case, since some file systems ignore case.
        objects: number of detections.
    """

    output: Path
    add: Callable[[Sequence[Any]], None]
    categories: Sequence[Category]
    images: list[dict[str, Any]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    objects: int = 0

    def free_name(self, stem: str, ending: str) -> str:
        """A file name that no other result has: ``a.jpg``, ``a_2.jpg``, ..."""
        number, name = 1, f"{stem}{ending}"
        while name.lower() in self.names:
            number += 1
            name = f"{stem}_{number}{ending}"
        self.names.add(name.lower())
        return name

    def record(self, detections: Detections, size: tuple[int, int], **entry: Any) -> None:
        """Write down the next image's detections; `entry` goes into images.json."""
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, **entry, "height": size[0], "width": size[1]})
        ids = [category.id for category in self.categories]
        results = coco_results(detections, image_id=image_id, original_size=size, category_ids=ids)
        self.add(list(results.entries()))
        self.objects += len(detections)


def predict(
    inputs: Sequence[str], detector: Detector, output: Path, *, score: float, labels: Sequence[int]
) -> list[str]:
    """Find objects in every input and write all results into `output`; returns what was skipped.

    Args:
        inputs: as `data.sources.find_sources`.
        score: detections below it are left out.
        labels: of the classes to keep.

    Raises:
        InputError: no input could be read, or the results would overwrite an input.
    """
    sources, skipped = find_sources(inputs, exclude=output)
    for problem in skipped:
        _report(problem)
    for source in sources:
        if source.path.resolve().parent == output.resolve():
            raise InputError(f"{source.path}: lies in --output {output}; write into another folder")
    if not sources:
        raise InputError(f"{', '.join(map(str, inputs))}: nothing to predict; name other files")
    wanted = torch.tensor(labels)

    def detect(image: np.ndarray) -> Detections:
        detections = detector(image)
        return detections[(detections.scores >= score) & torch.isin(detections.labels, wanted)]

    with writing_list(output / "detections.json") as add:
        results = Predictions(output, add, detector.categories)
        for source in tqdm(sources, "predicting", unit="file", disable=None):
            try:
                if source.kind == "image":
                    predict_image(source.path, detect, results)
                else:
                    predict_video(source.path, detect, results)
            except InputError as error:
                skipped.append(str(error))
                _report(str(error))
        if not results.images:
            raise InputError(f"nothing predicted: none of {len(skipped)} files could be read")
    categories = [{"id": c.id, "name": c.name} for c in detector.categories]
    document = {"images": results.images, "categories": categories, "annotations": []}
    write_json(output / "images.json", document)
    print(f"{results.objects} objects in {len(results.images)} images; written to {output}")
    return skipped


def predict_image(path: Path, detect: Detect, results: Predictions) -> None:
    """Find, draw and record the objects of one image, of several in the file the first."""
    image = decode(path)
    count = pictures_in(path)
    if count > 1:
        tqdm.write(f"note: {path}: holds {count} pictures; the first is taken", file=sys.stderr)
    detections = detect(image)
    jpeg = path.suffix.lower() in (".jpg", ".jpeg", ".jpe")
    name = results.free_name(path.stem, ".jpg" if jpeg else ".png")
    names = [category.name for category in results.categories]
    write_picture(results.output / name, draw_detections(image, detections, names, min_score=0))
    size = (image.shape[0], image.shape[1])
    results.record(detections, size, file_name=str(path), drawn=name)


def predict_video(path: Path, detect: Detect, results: Predictions) -> None:
    """Find, draw and record the objects of a video, one frame in memory at a time.

    Raises:
        InputError: no video; or it ends before its stated length, after what there is was written.
    """
    names = [category.name for category in results.categories]
    with reading_video(path) as video:
        name = results.free_name(path.stem, video_ending(video.size))
        with writing_video(results.output / name, size=video.size, rate=video.rate) as write:
            total = video.count or None
            bar = tqdm(video.frames, name, total, unit="frame", leave=False, disable=None)
            for number, frame in enumerate(bar):
                detections = detect(frame)
                write(draw_detections(frame, detections, names, min_score=0, enlarge=False))
                results.record(
                    detections, video.size, file_name=str(path), frame=number, drawn=name
                )
    if number + 1 < (1 - STATED_WRONG) * video.count - 1:
        raise InputError(
            f"{path}: ends after {number + 1} of the {video.count} frames that it states (cut "
            f"short?); {name} has these"
        )


def chosen_labels(categories: Sequence[Category], names: str | None) -> list[int]:
    """The labels of the classes in `names`, separated by commas; all if it is None.

    Raises:
        InputError: the network has no such class; suggests the most similar name.
    """
    known = {category.name: label for label, category in enumerate(categories)}
    if names is None:
        return list(known.values())
    labels = []
    for name in (name.strip() for name in names.split(",")):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or list(known)[:5]
            raise InputError(f"--classes {name}: unknown; choose from {', '.join(near)}")
        labels.append(known[name])
    return labels


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB ``[H, W, 3]`` in the format of the path's ending, atomically."""
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _report(problem: str) -> None:
    tqdm.write(f"skipped: {problem}", file=sys.stderr)


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict as the command line asks; returns the exit status."""
    parser = argparse.ArgumentParser(description="Find objects in images and videos.")
    parser.add_argument("inputs", nargs="+", help="images, videos, folders or patterns")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder or a .pt")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder")
    parser.add_argument("--score", type=_score, default=0.5, help="least score, 0 to 1")
    parser.add_argument("--classes", help="names, separated by commas; default: all")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1; default: the run's")
    options = parser.parse_args(arguments)

    def action() -> list[str]:
        detector = load(
            options.checkpoint,
            device=options.device,
            score_threshold=max(options.score - BELOW, 0.0),
        )
        labels = chosen_labels(detector.categories, options.classes)
        make_folder(options.output)
        return predict(options.inputs, detector, options.output, score=options.score, labels=labels)

    return 1 if command_line(action) else 0


if __name__ == "__main__":
    sys.exit(main())
