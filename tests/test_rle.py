"""Run lengths agree with the COCO API's, and damaged ones are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from ops import rle

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.bool_, shape)
)


@given(masks)
def test_strings_and_areas_equal_those_of_the_coco_api(mask: np.ndarray) -> None:
    official = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = rle.encode(mask)
    assert rle.compress(runs) == official["counts"].decode()
    assert np.array_equal(rle.decompress(official["counts"].decode()), runs)
    assert rle.area(runs) == mask.sum() == coco_mask.area(official)


@given(masks, st.tuples(*[st.integers(0, 2)] * 4))
def test_a_part_is_encoded_as_the_whole_image_with_zeros_around(
    mask: np.ndarray, around: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = around
    image = np.pad(mask, ((top, bottom), (left, right)))
    assert np.array_equal(rle.encode(mask, (left, top), image.shape), rle.encode(image))


@given(masks)
def test_a_crop_is_the_tight_part_of_the_mask(mask: np.ndarray) -> None:
    if not mask.any():
        return
    pixels, (x1, y1, x2, y2) = rle.crop(rle.encode(mask), len(mask))
    assert pixels.any(axis=0)[[0, -1]].all() and pixels.any(axis=1)[[0, -1]].all()
    restored = np.zeros_like(mask)
    restored[y1:y2, x1:x2] = pixels
    assert np.array_equal(restored, mask)


def test_runs_of_length_zero_inside_the_list_do_no_harm() -> None:
    runs = rle.from_list([2, 1, 0, 2, 4])  # 2 zeros, 3 ones in two stretches, 4 zeros
    pixels, box = rle.crop(runs, 3)
    expected = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0]).reshape(3, 3).T
    assert box == (0, 0, 2, 3)
    assert np.array_equal(pixels, expected[:, :2])


def test_large_images_fit() -> None:
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[1000:, 1500:] = True
    assert np.array_equal(rle.decompress(rle.compress(rle.encode(mask))), rle.encode(mask))


@pytest.mark.parametrize("text", ["a\x1f", "a", "\u00e9", "01O"])
def test_damaged_strings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"run length|character"):
        rle.decompress(text)


@given(st.lists(st.text(st.characters(min_codepoint=46, max_codepoint=114), max_size=40)))
def test_many_strings_are_read_as_one_by_one(texts: list[str]) -> None:
    texts = [*texts, rle.compress(np.array([7, 3, 0, 900, 70000, 2], np.uint32))]
    runs, begins, problems = rle.decompress_all(texts)
    for index, text in enumerate(texts):
        if index in problems:
            with pytest.raises(ValueError, match=r"run length|character"):
                rle.decompress(text)
        else:
            expected = rle.decompress(text)
            assert np.array_equal(runs[begins[index] : begins[index + 1]], expected)


@pytest.mark.parametrize("counts", [None, [], [1, -1], [1.5], ["1"], [True], 7, [1 << 40]])
def test_damaged_lists_are_refused(counts: object) -> None:
    with pytest.raises(ValueError, match="run length"):
        rle.from_list(counts)
