"""Write the proposals of a trained RPN to files, for training other networks on them.

    python train.py experiment=demo/rpn
    python scripts/dump_proposals.py checkpoint=outputs/demo/rpn/seed0

writes `train.safetensors` and `val.safetensors` into the run's `proposals/` (or `output=FOLDER`),
with `proposals.rpn.post_nms` boxes per image. Runs with `proposals=frozen` read them, and refuse
files of other images or of images that have changed since.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from build import build_data
from configuration import command_line, run_command, with_overrides
from data.loader import eval_loader
from data.proposals import Record, write_proposals
from data.splits import DetectionDataset
from data.transforms import EvalTransform
from detector import detect, load
from files.atomic import make_folder
from judging.proposal_recall import ProposalRecall
from models.mask_rcnn import MaskRCNN
from ops.errors import InputError
from running.checkpoint import weights_digest
from running.runtime import Runtime


def dump(cfg: DictConfig, overrides: list[str]) -> Path:
    """Write both files; returns their folder.

    Raises:
        InputError: the checkpoint has no RPN, or does not fit the data set.
    """
    if not cfg.checkpoint:
        raise InputError("checkpoint is not set: give checkpoint=outputs/RUN, the run of an RPN")
    detector = load(
        cfg.checkpoint, needs=("rpn",), change=lambda saved: with_overrides(saved, cfg, overrides)
    )
    cfg, model = detector.config, detector.model
    data = build_data(cfg)
    detector.check_categories(data.val)
    folder = Path(cfg.output) if cfg.output else detector.folder / "proposals"
    make_folder(folder)
    digest = weights_digest(model.state_dict())
    print(f"detector {digest}")
    model.roi_heads = None  # makes it a network that only proposes
    for use, (split, dataset) in enumerate((("train", data.train), ("val", data.val))):
        assert model.rpn is not None
        # The training split gets the number of proposals of training, although this is inference.
        model.rpn.pre_nms = (cfg.proposals.rpn.pre_nms[use],) * 2
        model.rpn.post_nms = (cfg.proposals.rpn.post_nms[use],) * 2
        recall = ProposalRecall(dataset.ground_truth())
        records = propose(model, dataset, data.eval_transform, detector.runtime, cfg, recall)
        file = folder / f"{split}.safetensors"
        write_proposals(file, dataset, records, detector=digest)
        figures = ", ".join(f"{name[10:]} {value:.1f}" for name, value in recall.figures().items())
        print(f"{file}: {len(dataset)} images; {figures}")
    return folder


def propose(
    model: MaskRCNN,
    dataset: DetectionDataset,
    transform: EvalTransform,
    runtime: Runtime,
    cfg: DictConfig,
    recall: ProposalRecall,
) -> Iterator[Record]:
    """The proposals of every image, in the pixels of its file; each is added to `recall` too."""
    loader = eval_loader(
        dataset, transform, batch_size=cfg.evaluation.batch_size, workers=cfg.workers
    )
    bar = tqdm(loader, "proposing", disable=not cfg.run.progress, leave=False, unit="batch")
    for batch in bar:
        for sample, proposals in zip(batch.samples, detect(model, batch, runtime), strict=True):
            recall.add(sample.image_id, proposals.boxes)
            yield Record(sample.image_id, proposals.boxes.numpy(), proposals.scores.numpy())


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Command line; the settings are those of evaluate.py."""
    command_line(lambda: dump(cfg, list(HydraConfig.get().overrides.task)))


if __name__ == "__main__":
    run_command(main, "evaluate")
