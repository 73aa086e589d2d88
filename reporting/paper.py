"""Mask R-CNN's own figures (He et al., 2017, tables 2c and 2d), to stand beside ours.

ResNet-50 on COCO, trained on trainval35k, tested on minival; percent.
"""

SETTING = "ResNet-50, COCO"
TABLES = {16: "2c", 32: "2d"}
FIGURES = ("AP", "AP50", "AP75")

# (stride, pooler, aggregation): mask AP, AP50, AP75. Table 2d does not state the aggregation:
# RoIPool has only the maximum, and RoIAlign is averaged wherever the paper does not say otherwise.
MASKS = {
    (16, "RoIPool", "max"): (26.9, 48.8, 26.4),
    (16, "RoIWarp", "max"): (27.2, 49.2, 27.1),
    (16, "RoIWarp", "avg"): (27.1, 48.9, 27.1),
    (16, "RoIAlign", "max"): (30.2, 51.0, 31.8),
    (16, "RoIAlign", "avg"): (30.3, 51.2, 31.5),
    (32, "RoIPool", "max"): (23.6, 46.5, 21.6),
    (32, "RoIAlign", "avg"): (30.9, 51.8, 32.1),
}
# The same of boxes, which table 2d alone has.
BOXES = {
    (32, "RoIPool", "max"): (28.2, 52.7, 26.9),
    (32, "RoIAlign", "avg"): (34.0, 55.3, 36.4),
}
# The rows of each table in the paper's order; at stride 32 with RoIWarp, which the paper left out.
ROWS = {
    16: (
        ("RoIPool", "max"),
        ("RoIWarp", "max"),
        ("RoIWarp", "avg"),
        ("RoIAlign", "max"),
        ("RoIAlign", "avg"),
    ),
    32: (("RoIPool", "max"), ("RoIWarp", "avg"), ("RoIAlign", "avg")),
}


def value(stride: int, pooler: str, agg: str, figure: str) -> float | None:
    """The paper's figure such as "segm/AP75", or None where it has none."""
    kind, _, name = figure.partition("/")
    row = {"segm": MASKS, "bbox": BOXES}[kind].get((stride, pooler, agg))
    return None if row is None or name not in FIGURES else row[FIGURES.index(name)]


def difference(stride: int, of: tuple[str, str], to: tuple[str, str], figure: str) -> float | None:
    """How far the paper's figure of one (pooler, aggregation) lies above another's."""
    upper, lower = value(stride, *of, figure), value(stride, *to, figure)
    return None if upper is None or lower is None else round(upper - lower, 1)
