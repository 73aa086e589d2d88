"""See a data set as the network receives it: after augmentation, with the masks it learns from.

    python scripts/browse.py                                        the drawn data set
    python scripts/browse.py data=coco data.root=/data/coco split=val html=coco.html
    python scripts/browse.py experiment=nuclei data.root=NUCLEI_FOLDER only=empty

Writes pictures, plots and statistics.json into a folder, or all of it as one self-contained page
with filters. The words are those of train.py; configs/browse.yaml lists the further ones.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from build import build_data, build_model
from configuration import check_settings, command_line, run_command
from data.splits import DetectionDataset
from data.statistics import Statistics, gather_statistics
from data.transforms import EvalTransform, TrainTransform
from files.atomic import make_folder, replacing, write_json, write_text
from models.network import LOADED_LATER
from ops.errors import InputError
from scripts.gallery.page import page
from scripts.gallery.plots import DARK, LIGHT, plot_statistics, rendered
from scripts.gallery.views import View, choose, view
from scripts.predict import write_picture

SHOWS = {
    "objects_per_image": "How many images hold how many objects",
    "sizes": "Sizes of the objects with COCO's borders of small, medium and large",
    "categories": "How many objects each category has",
}


def browse(cfg: DictConfig) -> Path:
    """Write the pictures and statistics that `cfg` asks for; returns where.

    Raises:
        InputError: bad data or settings.
    """
    if cfg.split not in ("train", "val"):
        raise InputError(f"split={cfg.split}: unknown; choose train or val")
    check_settings(cfg)
    page, folder = cfg.html, Path(cfg.output or Path(cfg.run.root) / "browse")
    make_folder(folder if page is None else Path(page).parent)
    data = build_data(cfg)
    dataset = data.train if cfg.split == "train" else data.val
    transform = data.train_transform if cfg.split == "train" else data.eval_transform
    chosen = choose(dataset, count=cfg.count, only=cfg.only, ids=cfg.ids)
    print(dataset.describe())
    statistics = gather_statistics(dataset)
    views = _views(cfg, dataset, transform, chosen)
    if page is not None:
        write_page(Path(page), cfg, dataset, statistics, views)
        return Path(page)
    write_files(folder, statistics, views)
    return folder


def _views(
    cfg: DictConfig,
    dataset: DetectionDataset,
    transform: TrainTransform | EvalTransform,
    chosen: list[int],
) -> Iterator[View]:
    resolution = mask_resolution(cfg, len(dataset.categories))
    for index in tqdm(chosen, "drawing", unit="image", disable=None):
        yield view(
            dataset,
            index,
            transform,
            # As data.loader seeds them: evaluation knows one epoch alone.
            seed=cfg.seed if cfg.split == "train" else 0,
            epoch=cfg.epoch if cfg.split == "train" else 0,
            mask_resolution=resolution,
        )


def mask_resolution(cfg: DictConfig, num_classes: int) -> int:
    """Cells across a mask target of the network that `cfg` describes."""
    cfg = OmegaConf.merge(  # type: ignore[assignment]
        cfg, {"backbone": {"weights": LOADED_LATER}, "weights": None, "proposals_only": False}
    )
    with torch.device("meta"):  # the parts without memory for their weights
        model = build_model(cfg, num_classes)
    assert model.roi_heads is not None
    return model.roi_heads.head.mask_resolution


def write_files(folder: Path, statistics: Statistics, views: Iterator[View]) -> None:
    """One picture an image, named by its id, the plots, and statistics.json."""
    for shown in views:
        write_picture(folder / f"{shown.image_id:012d}.jpg", shown.picture)
    for name, figure in plot_statistics(statistics, LIGHT).items():
        with replacing(folder / f"{name}.png") as temporary:
            temporary.write_bytes(rendered(figure, "png"))
    write_json(folder / "statistics.json", statistics.summary())


def write_page(
    path: Path,
    cfg: DictConfig,
    dataset: DetectionDataset,
    statistics: Statistics,
    views: Iterator[View],
) -> None:
    """Everything in one file."""
    light, dark = (plot_statistics(statistics, theme) for theme in (LIGHT, DARK))
    text = page(
        f"{dataset.annotations_file.name}, {cfg.split}",
        dataset.describe(),
        explanation(cfg, mask_resolution(cfg, len(dataset.categories))),
        views,
        [(SHOWS[name], light[name], dark[name]) for name in light],
    )
    write_text(path, text)


def explanation(cfg: DictConfig, resolution: int) -> str:
    """What the pictures show, in a few sentences."""
    prepared = (
        f"after training's augmentation (seed {cfg.seed}, epoch {cfg.epoch})"
        if cfg.split == "train"
        else "as evaluation prepares them"
    )
    masks = (
        f" Masks are the mask head's targets: rasterised in each object's box at {resolution} × "
        f"{resolution} cells and put back."
        if cfg.mask
        else ""
    )
    return (
        f"Images {prepared}.{masks} Crowd regions are hatched; they count as no object. Sizes are "
        "those of the file's objects: small below 32², large above 96² square pixels."
    )


@hydra.main(version_base="1.3", config_path="../configs", config_name="browse")
def main(cfg: DictConfig) -> None:
    """Command line; see configs/browse.yaml."""
    print(f"written to {command_line(lambda: browse(cfg))}")


if __name__ == "__main__":
    run_command(main, "browse")
