"""Finished runs of an ablation without any training: match results drawn at random, with a known
quality of each pooler, and the files that training would leave."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from files.atomic import write_json
from judging.matches import AREAS, IOU_THRESHOLDS, Matches, average_precision, save_matches

TARGETS = {"pool": "roi_pool.roi_pool", "warp": "roi_warp.roi_warp", "align": "roi_align.roi_align"}
# Variant: pooler, aggregation, stride, mean IoU of its masks with the objects.
DEMO: dict[str, tuple[str, str | None, int, float]] = {
    "pool_s16": ("pool", None, 16, 0.62),
    "warp_max_s16": ("warp", "max", 16, 0.625),
    "warp_avg_s16": ("warp", "avg", 16, 0.63),
    "align_max_s16": ("align", "max", 16, 0.70),
    "align_avg_s16": ("align", "avg", 16, 0.705),
    "pool_s32": ("pool", None, 32, 0.52),
    "warp_s32": ("warp", "avg", 32, 0.53),
    "align_s32": ("align", "avg", 32, 0.66),
}


def made_up_matches(
    quality: float,
    draw: np.random.Generator,
    *,
    images: int = 30,
    classes: int = 2,
    per_image: int = 3,
    set_seed: int = 0,
    image_noise: float = 0.06,
) -> Matches:
    """Detections whose IoU with their objects is `quality` on average.

    Args:
        draw: of the network; the images and how hard each is come from `set_seed`.
    """
    of_set = np.random.default_rng(set_seed)
    number = images * per_image
    image = np.repeat(np.arange(images), per_image)
    category = of_set.integers(0, classes, number)
    size = of_set.integers(1, len(AREAS), number)
    hardness = of_set.normal(0, image_noise, images)[image] + of_set.normal(0, image_noise, number)
    objects = np.zeros((len(AREAS), images, classes), np.int32)
    for area in range(len(AREAS)):
        chosen = (size == area) | (area == 0)
        np.add.at(objects[area], (image[chosen], category[chosen]), 1)

    iou = quality + hardness + draw.normal(0, 0.1, number)
    right = (iou >= IOU_THRESHOLDS[:, None]) & (draw.random(number) < 0.92)  # [T, D]
    score = np.clip(0.75 + 0.6 * (iou - quality) + draw.normal(0, 0.1, number), 0.05, 1)
    false = draw.random(number) < 0.5  # as many again are of nothing
    order = np.lexsort((-np.r_[score, score[false] - 0.3], np.r_[category, category[false]]))
    everything = np.concatenate([right, np.zeros((len(IOU_THRESHOLDS), false.sum()), bool)], axis=1)
    inside = np.stack([(size == a) | (a == 0) for a in range(len(AREAS))])  # [A, D]
    inside = np.concatenate([inside, np.arange(len(AREAS))[:, None] == np.zeros(false.sum())], 1)
    return Matches(
        image_ids=np.arange(1, images + 1),
        category_ids=np.arange(1, classes + 1),
        scores=np.r_[score, score[false] - 0.3][order],
        images=np.r_[image, image[false]][order].astype(np.int32),
        classes=np.r_[category, category[false]][order].astype(np.int32),
        tp=(everything & inside[:, None])[..., order],
        ignored=np.broadcast_to(~inside[:, None], (len(AREAS), *everything.shape))[..., order],
        objects=objects,
    )


def figures(matches: Matches) -> dict[str, float]:
    """COCO's six APs in percent."""
    ap = {
        area: 100 * np.nanmean(average_precision(matches, area=area)[0], axis=1) for area in AREAS
    }
    values = {"AP": ap["all"].mean(), "AP50": ap["all"][0], "AP75": ap["all"][5]}
    sizes = {f"AP{area[0]}": ap[area].mean() for area in AREAS if area != "all"}
    return {name: float(value) for name, value in {**values, **sizes}.items()}


def configuration(variant: tuple[str, str | None, int, float], seed: int) -> dict[str, Any]:
    """What config.yaml holds, as far as a report reads it."""
    pooler, agg, stride, _ = variant
    return {
        "seed": seed,
        "stride": stride,
        "backbone": {"_target_": "models.resnet.resnet", "blocks": [1, 2, 2, 2], "width": 32},
        "pooler": {"_target_": f"ops.{TARGETS[pooler]}", **({"agg": agg} if agg else {})},
        "proposals": {"files": {"train": "train.safetensors"}},
        "schedule": {"steps": 600, "lr": 0.001, "images_per_step": 16},
        "proposals_only": False,
        "run": {"name": f"{pooler}{seed}"},
    }


def write_run(
    folder: Path,
    variant: tuple[str, str | None, int, float],
    seed: int,
    *,
    kinds: tuple[str, ...] = ("bbox", "segm"),
    seed_noise: float = 0.01,
    **sizes: Any,
) -> None:
    """A finished run's folder."""
    folder.mkdir(parents=True)
    # The network's own draw; the same for a seed and variant wherever it is called from.
    draw = np.random.default_rng([seed, *folder.parent.name.encode()])
    quality = variant[3] + draw.normal(0, seed_noise)
    matches = {
        kind: made_up_matches(quality + (0.05 if kind == "bbox" else 0), draw, **sizes)
        for kind in kinds
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration(variant, seed)))
    save_matches(folder / "matches.npz", matches)
    metrics = {f"{kind}/{k}": v for kind, m in matches.items() for k, v in figures(m).items()}
    seconds = 100 + 10.5 * seed
    write_json(folder / "metrics.json", {**metrics, "train_seconds": seconds, "steps": 600})


def write_family(
    family: Path,
    variants: dict[str, tuple[str, str | None, int, float]] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    **settings: Any,
) -> Path:
    """All variants with all seeds, as `<family>/<variant>/seed<k>/`."""
    for name, variant in (DEMO if variants is None else variants).items():
        for seed in seeds:
            write_run(family / name / f"seed{seed}", variant, seed, **settings)
    return family


def edit_config(config: Path, **settings: object) -> None:
    """Change top-level settings of a run's config.yaml."""
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **settings}))
