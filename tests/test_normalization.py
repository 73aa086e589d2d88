"""From pixels to network input: statistics, channel order, padding."""

import torch

from models.normalization import MSRA, TORCHVISION, Normalize, PixelStatistics


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    statistics = PixelStatistics(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 5.0))
    image = torch.tensor([12, 26, 10], dtype=torch.uint8).view(3, 1, 1)
    assert Normalize(statistics)([image]).flatten().tolist() == [2, 3, -4]


def test_blue_comes_first_if_the_weights_are_bgr() -> None:
    rgb = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1)
    expected = torch.tensor([50 - 103.53, 100 - 116.28, 200 - 123.675])  # blue, green, red
    assert torch.allclose(Normalize(MSRA)([rgb]).flatten(), expected)


def test_grey_of_the_mean_becomes_zero() -> None:
    image = torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1)
    assert Normalize(TORCHVISION)([image]).abs().max() < 0.02


def test_padding_is_zero_to_the_right_and_below_and_no_larger_than_needed() -> None:
    images = [
        torch.full((3, 4, 9), 255, dtype=torch.uint8),
        torch.full((3, 6, 5), 255, dtype=torch.uint8),
    ]
    batch = Normalize(TORCHVISION)(images)
    assert batch.shape == (2, 3, 6, 9)
    assert batch[0, :, :4].min() > 1
    assert not batch[0, :, 4:].any()
    assert batch[1, :, :, :5].min() > 1
    assert not batch[1, :, :, 5:].any()


def test_a_checkpoint_brings_its_statistics() -> None:
    image = torch.randint(256, (3, 4, 5), dtype=torch.uint8)
    other = Normalize(TORCHVISION)
    other.load_state_dict(Normalize(MSRA).state_dict())
    assert torch.equal(other([image]), Normalize(MSRA)([image]))
    assert not torch.equal(other([image]), Normalize(TORCHVISION)([image]))
