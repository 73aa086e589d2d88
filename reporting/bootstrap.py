"""How far a difference between two networks can be trusted: images and seeds were drawn by chance.

The images' part is a paired bootstrap: both networks are scored on the same resampled images, so an
image that is hard for both cancels. Seeds are too few to be resampled (three values have a standard
deviation that is 18 % too small when drawn from again, and tails that end at the extremes), so
their part follows from the normal distribution instead.

Letters: N images, B resamples, S seeds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000
IMAGE_STREAM, SEED_STREAM = 0, 1  # of random numbers: the same ones in every report
SEED_DRAWS = 64  # to each resample: tails of two degrees of freedom need many


@dataclass(frozen=True)
class Interval:
    """A difference in points, and the bounds that hold it with 95 % confidence."""

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the bounds leave zero out."""
        return self.low > 0 or self.high < 0


def resampled_counts(images: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each image is drawn, [B, N]: N drawn with replacement, the same in every call."""
    draw = np.random.default_rng(IMAGE_STREAM)
    return draw.multinomial(images, np.full(images, 1 / images), size=resamples)


def paired_interval(differences: NDArray[np.float64], resampled: NDArray[np.float64]) -> Interval:
    """The mean difference over seeds, with a 95 % interval for images and seeds drawn anew.

    Images: the difference of the means over seeds on each resample. Seeds: that is moved by
    t x sd / sqrt(S), where t is drawn from Student's distribution of S - 1 degrees of freedom and
    sd is the standard deviation of the seeds' differences: with images without end, the t interval
    of the seeds; with equal seeds, the bootstrap of the images. What chance of the images lies in
    the single differences is in both parts, so that the interval is rather too wide than too
    narrow. One seed says nothing about seeds: the interval is then the images' alone.

    Args:
        differences: [S], one for each seed that both networks have, on the images as they are.
        resampled: [S, B], the same on each resample of the images.
    """
    seeds, resamples = resampled.shape
    values = resampled.mean(axis=0)
    if seeds > 1:
        t = np.random.default_rng(SEED_STREAM).standard_t(seeds - 1, (SEED_DRAWS, resamples))
        values = values + t * differences.std(ddof=1) / np.sqrt(seeds)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(differences.mean()), float(low), float(high))
