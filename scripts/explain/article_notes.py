"""The text beside the worked example's figures: their numbers, and the article's mistakes."""

from scripts.explain.article_steps import CORNERS, SCENE, example, features
from scripts.explain.geometry import Reading
from scripts.explain.poolers import choose

COMMAND = "python scripts/explain_pooling.py --article"

MISTAKES = """\
## Mistakes in the article

| the article | right | why |
|---|---|---|
| the first point is at (9.44, 6.50) | {first} | 9.44 counts from the cells' centres (9.94 - 0.5), \
while 6.50 counts from their edges |
| its list calls the second point bottom left | top right | its own drawing gives that point the \
neighbours 10.50 and 11.50; the third is bottom left, the fourth bottom right |
| Fast R-CNN of 2014, Mask R-CNN of 2018 | 2015 and 2017 | the years of the papers |

And three simplifications:

- A 16 x 16 x 512 map of a 512 x 512 image is VGG16's *after* its fifth pooling layer (stride 32);
  conv5_3 itself has stride 16.
- Points at the thirds of a bin are for teaching. Every library, and this project unless set
  otherwise, puts sample k of n at (k + 1/2) / n: at the quarters. Then {quarters} cells hold no
  point instead of {thirds}.
- RoIPool and RoIWarp there cut coordinates down. The Fast R-CNN layer rounds them to the nearest
  cell, counts the last cell in, and lets bins overlap, so on this box it loses nothing and reads a
  row from outside. Figures 5 and 6 show both forms.
"""


def notes() -> str:
    """Markdown; every number is computed from the same plans as the figures."""
    thirds, uniform = example(), Reading(choose("align"), SCENE)
    x1, y1, x2, y2 = thirds.box
    width, height = thirds.bin_size
    points = thirds.points(0, 0)
    values = features()
    cut, warp_cut = (Reading(choose(word), SCENE) for word in ("pool_floor", "warp_floor"))
    pool, warp = (Reading(choose(word), SCENE) for word in ("pool", "warp"))
    first = f"({points[0].x:.2f}, {points[0].y:.2f})"
    listed = "\n".join(
        f"   - {name}: ({point.x:.2f}, {point.y:.2f}), weights "
        f"{', '.join(f'{weight:.3f}' for weight in point.weights)}, value {point.value(values):.2f}"
        for name, point in zip(CORNERS, points, strict=True)
    )
    captions = f"""\
1. ![](1_map.svg) A box of 200 x 145 pixels at (296, 192) lies at ({x1:g}, {y1:g}) on the map,
   {x2 - x1:g} wide and {y2 - y1:.2f} high.
2. ![](2_bins.svg) Nine bins of {width:.2f} x {height:.2f} cells, {len(thirds.all_points)} points.
3. ![](3_points.svg) The first bin's points; weights of top left, top right, bottom left, bottom
   right cell:
{listed}
4. ![](4_values.svg) The mean or the largest of the four values is one output number.
5. ![](5_coverage.svg) RoIAlign reads all {len(thirds.coverage.inside)} cells of the box, although
   {len(thirds.cells_without_point())} of them hold no point. RoIPool that cuts down loses
   {len(cut.coverage.lost_mapping)} cells by mapping the box and {len(cut.coverage.lost_cutting)} \
by cutting the bins; the Fast R-CNN layer reads
   {len(pool.coverage.foreign)} from outside.
6. ![](6_roiwarp.svg) RoIWarp loses {len(warp_cut.coverage.lost_mapping)} cells where the box is \
cut down, {len(warp.coverage.lost_mapping)} where it is rounded.
7. ![](7_results.svg) The Mask R-CNN paper's tables 2c and 2d.
8. ![](8_interchangeable.svg) Any pooler fits any of the models.
"""
    mistakes = MISTAKES.format(
        first=first,
        quarters=len(uniform.cells_without_point()),
        thirds=len(thirds.cells_without_point()),
    )
    return f"""\
# One box, pooled: eight figures

A 512 x 512 image at stride 32, pooled into 3 x 3: the worked example of the article "Understanding
Region of Interest, part 2 (RoI Align)", drawn by `{COMMAND}` from the
plans that this project's ops compute with. The map's values are made up.

{captions}
{mistakes}"""
