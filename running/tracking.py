"""The record of a run: TensorBoard events, and every scalar exactly in ``metrics.jsonl``.

TensorBoard shows a sample of long curves; the JSON lines are complete. Tags: ``train/loss`` and
``train/loss_*``, ``train/lr``, ``train/data_seconds``, ``train/step_seconds``, ``val/...`` and the
figures of evaluation (``bbox/AP`` ...) under their own names; ``pr/<kind>/IoU<50 or 75>`` are
precision-recall curves. The run's hyperparameters stand in its own event file, without a sub-run.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import yaml
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.pr_curve import metadata as pr_curve
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from files.atomic import dump_json, replacing, write_text
from judging.coco_eval import AP_FIGURES, NO_OBJECTS
from ops.poolers import describe_pooler

Value = str | float | bool
BOARD = "_summary"
KINDS = {"bbox": "box", "segm": "mask"}
PR_THRESHOLDS = {"50": 0, "75": 5}  # AP's name of an IoU threshold, its place in .50:.05:.95
LOSSES = ("loss", "loss_cls", "loss_box", "loss_mask", "loss_rpn_cls", "loss_rpn_box")
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

    def session(self, hyperparameters: Mapping[str, Value], group: str) -> None:
        """Record the run's settings; runs that share `group` (a variant's seeds) are averaged."""
        self._summary(session_start(hyperparameters, group), 0)

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
        """Record precision against recall; see `running.tracking.pr_curves`."""
        self._summary(pr_curves(precision), step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Record a text in Markdown."""
        if self._events is not None:
            self._events.add_text(tag, text, step)

    def finish(self) -> None:
        """Record that the run succeeded, and close the files."""
        self._summary(session_end(success=True), 0)
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
            ending = session_end(success=False)
            write_events(self._folder, [ending], FAILED)

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


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Value]:
    """The settings in which runs are compared, from a run's configuration.

    A run that trains proposals alone has no pooler, and so none is named.
    """
    values: dict[str, Value] = {"backbone": describe_backbone(config["backbone"])}
    if not config.get("proposals_only"):
        values["pooler"], values["agg"] = describe_pooler(config["pooler"])
    schedule = config["schedule"]
    return values | {
        "stride": config["stride"],
        "lr": schedule["lr"],
        "images per step": schedule["images_per_step"],
        "steps": schedule["steps"],
        "seed": config["seed"],
    }


# The messages of one run


def session_start(values: Mapping[str, Value], group: str) -> Summary:
    """A run's hyperparameters; TensorBoard averages the runs that share a `group`."""
    info = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        else:
            info.hparams[name].number_value = value
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _hparams(hparams.SESSION_START_INFO_TAG, data)


def session_end(success: bool) -> Summary:
    """How a run ended."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _hparams(hparams.SESSION_END_INFO_TAG, data)


def pr_curves(precision: Mapping[str, np.ndarray]) -> Summary:
    """Precision against recall at IoU .50 and .75, the mean over the classes that have objects.

    TensorBoard's curves are indexed by a score threshold; COCO's are by recall, so the threshold
    shown is 1 - recall. The counts it shows beside are percent of the objects, found or missed;
    those of false positives are not kept in COCO's curve and stay 0.

    Args:
        precision: of each kind ("bbox", "segm"), ``[10 IoUs, 101 recalls, classes]`` from 0 to 1,
            -1 for a class without objects.
    """
    values = []
    recall = np.linspace(0.0, 1.0, 101)
    for kind, by_class in precision.items():
        present = (by_class >= 0).all(axis=(0, 1))
        if not present.any():
            continue
        for name, index in PR_THRESHOLDS.items():
            mean = by_class[index][:, present].mean(axis=1)  # [101]
            found = 100 * recall
            nothing = np.zeros_like(recall)
            rows = np.stack([found, nothing, nothing, 100 - found, mean, recall])
            metadata = pr_curve.create_summary_metadata(
                display_name=f"{KINDS[kind]}, IoU .{name} (recall-indexed)",
                description="Mean over the classes at each of COCO's 101 recalls; the threshold "
                "shown is 1 - recall, the counts are percent of the objects.",
                num_thresholds=len(recall),
            )
            # Thresholds rise, so recalls fall.
            tensor = make_tensor_proto(rows[:, ::-1].astype(np.float32))
            values.append(_value(f"pr/{kind}/IoU{name}", metadata, tensor))
    return Summary(value=values)


# The board of a family


def write_family_board(folder: Path, report_markdown: str) -> Path:
    """Write what compares the runs under `folder` into its `_summary/`, in place of an older one.

    Args:
        folder: a family of runs, such as outputs/demo; those with a config.yaml are counted.
        report_markdown: shown among the texts.

    Returns:
        The event file.
    """
    configs = sorted(folder.glob("**/config.yaml"))
    runs = [hyperparameters(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in configs]
    board = folder / BOARD
    board.mkdir(parents=True, exist_ok=True)
    older = list(board.glob("events.out.tfevents.*"))
    written = write_events(board, [experiment(runs), layout(), text("report", report_markdown)])
    for path in older:
        path.unlink()
    return written


def experiment(runs: Iterable[Mapping[str, Value]]) -> Summary:
    """The hyperparameters that there are, with every value that `runs` have, and the figures."""
    domains: dict[str, set[Value]] = {}
    for run in runs:
        for name, value in run.items():
            domains.setdefault(name, set()).add(value)
    metrics = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(group="", tag=f"{kind}/{figure}"),
            display_name=f"{title} {figure}",
            dataset_type=api_pb2.DATASET_VALIDATION,
        )
        for kind, title in reversed(KINDS.items())  # masks first, as in the paper
        for figure in AP_FIGURES
    ]
    information = api_pb2.Experiment(
        description="Runs that share a variant and differ in their seed are averaged.",
        time_created_secs=time.time(),
        hparam_infos=[_domain(name, values) for name, values in domains.items()],
        metric_infos=metrics,
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=information)
    return _hparams(hparams.EXPERIMENT_TAG, data)


def _domain(name: str, values: set[Value]) -> api_pb2.HParamInfo:
    words = any(isinstance(value, str) for value in values)
    domain = ListValue()
    domain.extend(sorted(values, key=str if words else float))
    return api_pb2.HParamInfo(
        name=name,
        type=api_pb2.DATA_TYPE_STRING if words else api_pb2.DATA_TYPE_FLOAT64,
        domain_discrete=domain,
        differs=len(values) > 1,
    )


def layout() -> Summary:
    """Charts of the custom scalars' page, each with the same figure of every run in it."""
    categories = {
        "Box": {figure: f"bbox/{figure}" for figure in AP_FIGURES},
        "Mask": {figure: f"segm/{figure}" for figure in AP_FIGURES},
        "Losses": {name: f"train/{name}" for name in LOSSES},
        "Validation loss": {name: f"val/{name}" for name in LOSSES},
    }
    proto = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=title,
                chart=[
                    layout_pb2.Chart(
                        title=f"{title}: {name}",
                        multiline=layout_pb2.MultilineChartContent(tag=[f"^{tag}$"]),
                    )
                    for name, tag in charts.items()
                ],
            )
            for title, charts in categories.items()
        ]
    )
    tensor = make_tensor_proto(proto.SerializeToString())
    metadata = custom_scalar.create_summary_metadata()
    return Summary(value=[_value(custom_scalar.CONFIG_SUMMARY_TAG, metadata, tensor)])


def text(tag: str, markdown: str) -> Summary:
    """A text in Markdown."""
    metadata = text_metadata.create_summary_metadata(display_name=tag, description="")
    return Summary(value=[_value(tag, metadata, make_tensor_proto([markdown.encode()]))])


def write_events(folder: Path, summaries: Iterable[Summary], suffix: str = "") -> Path:
    """An event file of its own with `summaries` at step 0, written atomically."""
    now = time.time()
    # TensorBoard reads a folder's files in the order of their names, which begin with the time.
    path = folder / f"events.out.tfevents.{int(now):010d}.{time.time_ns()}{suffix}"
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for summary in summaries:
            writer.write(Event(wall_time=now, step=0, summary=summary).SerializeToString())
        writer.flush()
    return path


def _hparams(tag: str, data: Message) -> Summary:
    metadata = hparams.create_summary_metadata(data)
    return Summary(value=[_value(tag, metadata, hparams.NULL_TENSOR)])


def _value(tag: str, metadata: SummaryMetadata, tensor: TensorProto) -> Summary.Value:
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


PLAIN_WIDTH = 64  # channels of the first stage in an ordinary ResNet or VGG16


def describe_backbone(backbone: Mapping[str, Any]) -> str:
    """VGG16, ResNet-50, or ResNet-16 (width 32): layers are counted as in He et al. (2015)."""
    function = str(backbone["_target_"]).rpartition(".")[-1]
    name = "ResNet" if function == "resnet" else function.upper()
    depth = backbone.get("depth")
    if "blocks" in backbone:
        depth = 2 + sum(backbone["blocks"]) * (3 if backbone.get("bottleneck") else 2)
    layers = f"-{depth}" if depth else ""
    width = backbone.get("width") or PLAIN_WIDTH
    narrow = f" (width {width})" if width != PLAIN_WIDTH else ""
    return f"{name}{layers}{narrow}"
