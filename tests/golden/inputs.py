"""What detectron2 and this project are compared on: weights, images, objects, and which values.

Weights and images are drawn from PCG64's stream of integers, which is the same in all versions of
NumPy, so they need not be stored.
"""

import math
import zlib

import numpy as np

SEED = 10
NUM_CLASSES = 7
STEP = 11  # of large arrays every eleventh value is kept
POOLED = 4  # proposals of an image whose pooled features are kept
GRADIENTS = 4  # values of each parameter's gradient that are kept, at most
SIZES = ((128, 160), (144, 112))  # height, width of each image
# Each object's class and its outline, x y x y ... in pixels.
OBJECTS = (
    (
        (0, (20, 30, 70, 24, 84, 60, 50, 90, 16, 66)),
        (3, (96, 40, 150, 44, 140, 110, 100, 104)),
        (6, (60, 84, 100, 100, 66, 124)),
    ),
    (
        (2, (8, 10, 56, 10, 56, 70, 8, 70)),
        (3, (50, 60, 104, 72, 90, 136, 40, 120)),
    ),
)


def image(index: int) -> np.ndarray:
    """Squares of one colour under noise: uint8 BGR ``[H, W, 3]``."""
    height, width = SIZES[index]
    squares = _bytes(f"squares {index}", (height // 16, width // 16, 3))
    noise = _bytes(f"noise {index}", (height, width, 3))
    return squares.repeat(16, axis=0).repeat(16, axis=1) // 4 * 3 + noise // 4


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter or statistic by detectron2's name: float32, of a size that keeps values apart."""
    values = _uniform(name, shape)
    if name.endswith("running_var"):
        values = 1 + 0.2 * values
    elif name.endswith("norm.weight"):
        values = _norm_scale(name) * (1 + 0.2 * values)
    elif len(shape) == 1:  # biases, means
        values = 0.15 * values
    else:
        gain = next((gain for part, gain in GAINS.items() if part in name), 2.0)
        values = values * math.sqrt(3 * gain / math.prod(shape[1:]))
        if "cls_score" in name:  # rows sum to 0, or the features' mean would favour one class
            values[:, shape[1] // 2 :] = -values[:, : shape[1] // 2]
    return values.astype(np.float32)


# Variance of a layer's outputs, for inputs of mean square 1; 2 (elsewhere) makes up for the ReLU.
GAINS = {
    "anchor_deltas": 0.3,
    "objectness_logits": 8.0,
    "cls_score": 30.0,
    "bbox_pred": 2.0,
    "mask_head.predictor": 40.0,
}


def _norm_scale(name: str) -> float:
    """Brings pixels of up to 255 to values of about 1, and keeps the sum of many blocks there."""
    if "stem" in name:
        return 0.015
    return 0.15 if "conv3" in name else 0.75


def some_of_gradient(size: int) -> slice:
    """Which values of a gradient of `size` numbers are kept."""
    return slice(None, None, -(-size // GRADIENTS))


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 2^-52 in [-1, 1)."""
    return (_integers(name, shape) >> 11) * 2.0**-52 - 1


def _bytes(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return (_integers(name, shape) >> 56).astype(np.uint8)


def _integers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    stream = np.random.PCG64([SEED, zlib.crc32(name.encode())])
    return stream.random_raw(math.prod(shape)).reshape(shape)
