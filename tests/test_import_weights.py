"""detectron2's weights through the command line: evaluated, imported, exported, trained from."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from evaluate import evaluate_checkpoint, evaluate_weights
from files.restricted_pickle import load_pickle
from judging.coco_eval import compare_with_expected
from models.normalization import MSRA
from models.resnet import resnet
from models.weight_names import detectron2_name
from models.weights import structure_of
from ops.errors import InputError
from running.checkpoint import load_checkpoint, save_checkpoint
from scripts.import_weights import main as import_weights
from tests.golden_models import CONFIGS, MODELS, NARROW, full_size_c4
from train import train

PROJECT = Path(__file__).resolve().parent.parent
WIDTHS = [word for word in NARROW if word.startswith(("backbone.", "head."))]


@pytest.fixture(scope="module")
def three_images(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words that make three of COCO's photographs the data set, small enough to be quick."""
    whole = json.loads((shared / "coco-mini/annotations/instances_val2017.json").read_text())
    whole["images"] = whole["images"][:3]
    ids = {image["id"] for image in whole["images"]}
    whole["annotations"] = [a for a in whole["annotations"] if a["image_id"] in ids]
    path = tmp_path_factory.mktemp("coco") / "three.json"
    path.write_text(json.dumps(whole))
    return [
        f"data.root='{shared / 'coco-mini'}'",
        *(f"data.{split}_annotations='{path}'" for split in ("train", "val")),
        "data.train_folder=val2017",
        "data.eval_transform.short_edge=96",
        "data.train_transform.short_edges=[96]",
        "proposals.rpn.post_nms=[50,50]",
        "roi.score_threshold=0.02",
        "workers=0",
        "run.progress=false",
    ]


def composed(*words: str, config: str = "evaluate") -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return compose(config, overrides=list(words))


def detections(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "detections.json").read_text())


def test_the_command_line_evaluates_a_model_of_the_zoos_form(
    shared: Path, three_images: list[str], tmp_path: Path
) -> None:
    weights = f"weights='{shared / 'golden/c4_align/weights.pkl'}'"
    words = [weights, *MODELS["c4_align"], *WIDTHS, *three_images]
    run = subprocess.run(
        [sys.executable, PROJECT / "evaluate.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "detectron2's detector: 279 tensors loaded, 0 missing, 0 unexpected" in run.stdout
    assert "expected figures are of 5000 images, not 3" in run.stdout
    assert len(detections(tmp_path / "outputs/weights/evaluation")) > 10


@pytest.mark.parametrize("model", ["c4_pool", "c5_align"])
def test_evaluation_alone_and_after_import_give_the_same(
    shared: Path, three_images: list[str], tmp_path: Path, model: str
) -> None:
    weights = shared / "golden" / model / "weights.pkl"
    words = [*MODELS[model], *WIDTHS, *three_images]
    at_once = composed(f"weights='{weights}'", f"output='{tmp_path / 'at_once'}'", *words)
    evaluate_weights(at_once)
    assert len(detections(tmp_path / "at_once")) > 10
    import_weights([str(weights), str(tmp_path / "zoo.pt"), *words])
    of_checkpoint = [f"checkpoint='{tmp_path / 'zoo.pt'}'", f"output='{tmp_path / 'later'}'"]
    evaluate_checkpoint(composed(*of_checkpoint), of_checkpoint)
    assert detections(tmp_path / "later") == detections(tmp_path / "at_once")
    # Back again: the arrays that detectron2 wrote, bit for bit.
    import_weights([str(tmp_path / "zoo.pt"), str(tmp_path / "back.pkl")])
    theirs, back = (load_pickle(path)["model"] for path in (weights, tmp_path / "back.pkl"))
    assert back.keys() == theirs.keys()
    assert all((back[name] == theirs[name]).all() for name in theirs)


def test_training_begins_from_a_detector_and_keeps_its_normalisation(
    shared: Path, three_images: list[str], tmp_path: Path
) -> None:
    weights = shared / "golden" / "c4_align" / "weights.pkl"
    cfg = composed(
        "experiment=detectron2/r50_c4",
        f"weights='{weights}'",
        "backbone.stride_in_1x1=null",
        *WIDTHS,
        *three_images,
        "schedule.steps=1",
        "schedule.images_per_step=2",
        "evaluation.loss_images=0",
        "evaluation.pictures=0",
        f"run.dir='{tmp_path / 'run'}'",
        config="train",
    )
    train(cfg)
    checkpoint = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    frozen = load_pickle(weights)["model"]["backbone.res2.0.conv1.weight"]
    assert (checkpoint.model["backbone.res2.0.conv1.weight"].numpy() == frozen).all()
    assert checkpoint.model["normalize.order"].tolist() == [2, 1, 0]
    assert "stride_in_1x1: true" in checkpoint.config_text
    again = [f"checkpoint='{tmp_path / 'run'}'", f"output='{tmp_path / 'again'}'"]
    evaluate_checkpoint(composed(*again), again)
    assert detections(tmp_path / "again") == detections(tmp_path / "run")
    # A checkpoint of ours is a file like any other: whole, or its backbone alone.
    last = tmp_path / "run/checkpoints/last.pt"
    assert structure_of(str(last)) == {"stride_in_1x1": True, "res5_stride": 2, "res5_dilation": 1}
    network = resnet(stride=32, depth=50, width=8, stem_channels=8, weights=str(last))
    assert network.statistics.channel_order == "bgr"
    assert network.statistics.mean == pytest.approx(MSRA.mean)
    assert (network.trunk.state_dict()["res2.0.conv1.weight"].numpy() == frozen).all()


def test_a_network_of_another_kind_ends_in_one_line(
    shared: Path, three_images: list[str], tmp_path: Path
) -> None:
    weights = shared / "golden" / "c5_align" / "weights.pkl"
    with pytest.raises(InputError, match=r"has no tensor roi_heads\.res5\.") as error:
        evaluate_weights(
            composed("experiment=detectron2/r50_c4", f"weights='{weights}'", *WIDTHS, *three_images)
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("res5_stride: 1", "res5_stride=2"), ("{norm: group, res5_stride: 2}", "groups channels")],
)
def test_what_detectron2_would_compute_otherwise_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    head = torch.nn.ModuleDict({"head": torch.nn.ModuleDict({"res5": torch.nn.Linear(1, 1)})})
    save_checkpoint(
        tmp_path / "a.pt",
        model=torch.nn.ModuleDict({"roi_heads": head}),
        step=0,
        config_text=f"backbone: {setting}" if "{" in setting else f"backbone: {{{setting}}}",
        categories=[],
    )
    with pytest.raises(SystemExit):
        import_weights([str(tmp_path / "a.pt"), str(tmp_path / "a.pkl")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.pkl").exists()


FULL_SIZE = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from build import build_model, with_structure
from models.weight_files import open_weights
from models.weights import load_detector
with initialize_config_dir(version_base="1.3", config_dir=sys.argv[2]):
    cfg = compose("train", overrides=["experiment=detectron2/r50_c4", f"weights='{sys.argv[1]}'"])
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])
before = peak()
model = build_model(with_structure(cfg), 80)
load_detector(model, open_weights(Path(sys.argv[1])))
print((peak() - before) / Path(sys.argv[1]).stat().st_size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells its peak memory")
def test_the_full_size_c4_needs_little_more_memory_than_itself_twice(tmp_path: Path) -> None:
    """Once the network, once the file: at most 2.5 of the file's size together."""
    arrays = {
        detectron2_name(name): torch.full_like(tensor, 0.01).numpy()
        for name, tensor in full_size_c4().items()
        if not name.startswith("normalize.")
    }
    assert len(arrays) == 279
    assert arrays["roi_heads.box_predictor.cls_score.weight"].shape == (81, 2048)
    path = tmp_path / "model_final.pkl"
    with path.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "test"}, file)
    run = subprocess.run(
        [sys.executable, "-c", FULL_SIZE, str(path), str(PROJECT / "configs")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 1 < float(run.stdout.split()[-1]) <= 2.5


def test_figures_are_compared_with_the_expected_ones() -> None:
    expected = {"metrics": {"bbox/AP": 36.8, "segm/AP": 32.2}, "tolerance": 0.3}
    expected |= {"images": 5000, "steps": 90000}
    metrics = {"bbox/AP": 36.61, "segm/AP": 31.5}
    same = {"images": 5000, "steps": 90000, "expected": expected}
    text = compare_with_expected(metrics, **same)
    assert "bbox/AP 36.61 as expected (36.8 ± 0.3)" in text
    assert "segm/AP 31.50 NOT as expected (32.2 ± 0.3)" in text
    assert "none of the expected" in compare_with_expected({}, **same)
    assert "as expected" not in compare_with_expected(metrics, **{**same, "images": 3})
    assert "as expected" not in compare_with_expected(metrics, **{**same, "steps": 10})
    least = {"at_least": {"bbox/AP": 36}, "images": 5000}
    assert "36.61 as expected (at least 36)" in compare_with_expected(
        metrics, **{**same, "expected": least}
    )
