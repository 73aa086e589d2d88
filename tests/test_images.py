"""Image files of every kind come out as 8-bit RGB, and damaged ones are refused by name."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_coco
from PIL import Image

from data.images import read_image
from data.splits import check_images
from ops.errors import InputError


def _photograph(path: Path, **options: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def _without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _text(path: Path) -> None:
    path.write_text("this is no image")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _jpeg_without_its_end(path: Path) -> None:
    _photograph(path, format="JPEG")
    _without_its_end(path)


@pytest.mark.parametrize("spoil", [_text, _empty, _without_its_end, _jpeg_without_its_end])
def test_an_image_that_does_not_decode_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    dataset = small_coco.read(tmp_path)
    spoil(tmp_path / "images/five.png")
    for attempt in (lambda: check_images(dataset), lambda: dataset.read(1)):
        with pytest.raises(InputError) as caught:
            attempt()
        text = str(caught.value)
        assert "five.png: does not decode" in text and "replace the file" in text
        assert "\n" not in text


def test_an_image_removed_after_the_start_is_named(tmp_path: Path) -> None:
    dataset = small_coco.read(tmp_path)
    (tmp_path / "images/five.png").unlink()
    with pytest.raises(InputError, match=r"five\.png: cannot read .*restore the file"):
        dataset.read(1)


@pytest.mark.parametrize("decode", [True, False])
def test_an_image_of_another_size_is_refused(tmp_path: Path, decode: bool) -> None:
    content = small_coco.document()
    content["images"][0].update(width=31, height=20)
    dataset = small_coco.read(tmp_path, content)
    with pytest.raises(InputError) as caught:
        check_images(dataset, decode=decode)
    text = str(caught.value)
    assert "five.png: is 30 x 20 pixels" in text and "state 31 x 20" in text
    assert "correct its `width` and `height`" in text


# Kinds of images


def _read_one(folder: Path, encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """The image behind `encoded`, read through a data set that states `size`: [H, W, 3]."""
    content = small_coco.document()
    content["images"][0].update(height=size[0], width=size[1])
    dataset = small_coco.read(folder, content)
    (folder / "images/five.png").write_bytes(encoded)
    check_images(dataset, decode=False)
    return dataset.read(1).image.permute(1, 2, 0).numpy()


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 2] = 200  # red, to OpenCV
    assert (_read_one(tmp_path, _png(pixels), (20, 30)) == [200, 0, 0]).all()


def test_grayscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = np.arange(600, dtype=np.uint8).reshape(20, 30)
    assert (_read_one(tmp_path, _png(grey), (20, 30)) == grey[..., None]).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_to_8(tmp_path: Path, channels: int) -> None:
    deep = np.full((20, 30, channels), 65535, np.uint16)
    deep[:, :10] = 257 * 100
    deep[:, 10:20] = 257 * 100 + 128  # half way: 100.498 rounds to 100
    read = _read_one(tmp_path, _png(deep), (20, 30))
    assert (read[:, :20] == 100).all() and (read[:, 20:] == 255).all()


def test_alpha_is_dropped_and_the_colour_below_kept(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[...] = (10, 20, 30, 0)
    pixels[:, 15:, 3] = 255
    assert (_read_one(tmp_path, _png(pixels), (20, 30)) == [30, 20, 10]).all()


def test_palette_and_bilevel_images_read(tmp_path: Path) -> None:
    grey = np.where(np.arange(600).reshape(20, 30) % 2, 255, 0).astype(np.uint8)
    for mode in ("P", "1"):
        path = tmp_path / "one.png"
        Image.fromarray(grey).convert(mode).save(path)
        read = _read_one(tmp_path / mode, path.read_bytes(), (20, 30))
        assert (read == grey[..., None]).all()


def test_cmyk_photographs_read(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(path, quality=95)  # full red
    read = _read_one(tmp_path, path.read_bytes(), (20, 30)).astype(int)
    assert (np.abs(read - [255, 0, 0]) < 60).all()


def _rotated(path: Path, kind: str) -> bytes:
    """A 30 x 20 file whose EXIF says: rotate by 90 degrees to the right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = 255  # left in the file, so at the top after the rotation
    Image.fromarray(pixels).save(path, format=kind, exif=exif)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str) -> None:
    read = _read_one(tmp_path, _rotated(tmp_path / "r", kind), (30, 20))
    assert read.shape == (30, 20, 3)
    assert (read[:12] > 200).all() and (read[18:] < 50).all()


def test_annotations_made_before_the_exif_rotation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is 20 x 30 .*state 30 x 20; .*EXIF orientation"):
        _read_one(tmp_path, _rotated(tmp_path / "r", "JPEG"), (20, 30))


def test_floating_point_images_are_refused_with_a_remedy(tmp_path: Path) -> None:
    encoded = cv2.imencode(".tiff", np.ones((20, 30, 3), np.float32))[1].tobytes()
    with pytest.raises(InputError, match=r"float32; convert the image to 8 or 16 bits"):
        _read_one(tmp_path, encoded, (20, 30))


def test_a_damaged_chunk_inside_a_png_is_refused(tmp_path: Path) -> None:
    encoded = bytearray(_png(np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)))
    start = encoded.index(b"IDAT")
    length = struct.unpack(">I", encoded[start - 4 : start])[0]
    body = zlib.compress(b"short")[:length].ljust(length, b"\0")
    encoded[start + 4 : start + 4 + length] = body
    with pytest.raises(InputError, match="does not decode"):
        _read_one(tmp_path, bytes(encoded), (20, 30))


def _jpeg(tmp_path: Path) -> bytes:
    path = tmp_path / "plain.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    return path.read_bytes()


@pytest.mark.parametrize("tail", [b"", b"\x00" * 64, b"ftypmp42\xff\xda\x00\xff\xd8\xff\xdabits"])
def test_a_jpeg_ends_where_its_markers_end(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_jpeg(tmp_path) + tail)
    assert read_image(path, (24, 32)).shape == (3, 24, 32)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.995])
def test_a_jpeg_cut_short_is_refused_whatever_is_appended(tmp_path: Path, share: float) -> None:
    data, path = _jpeg(tmp_path), tmp_path / "photo.jpg"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="does not decode"):
        read_image(path, (24, 32))


def test_a_size_that_cannot_be_is_refused_before_a_pixel_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    cv2.imwrite(str(path), np.zeros((3000, 3000), np.uint8))
    monkeypatch.setattr(cv2, "imdecode", None)  # nobody may decode
    with pytest.raises(InputError, match=r"is 3000 x 3000 pixels .* state 64 x 64"):
        read_image(path, (64, 64))


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(InputError, match="is no regular file"):
            read_image(path, (4, 4))
