"""Anchors: the reference boxes that the RPN scores (Faster R-CNN, section 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Anchors of every size and aspect ratio at every cell of one feature map.

    The anchors of cell (row, column) are centred on ``((column + offset) * stride, (row + offset) *
    stride)`` in image pixels. Within a cell, ratios vary fastest; corners are not rounded. Both are
    as in detectron2.

    Args:
        sizes: square roots of the anchors' areas, in pixels.
        aspect_ratios: height / width.
        stride: pixels from one cell to the next.
        offset: of the anchors' centre from the cell's upper left corner, in cells.
    """

    cell: Tensor

    def __init__(
        self,
        *,
        sizes: Sequence[float],
        aspect_ratios: Sequence[float],
        stride: int,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.offset = offset
        self.register_buffer("cell", _around_origin(sizes, aspect_ratios), persistent=False)

    @property
    def per_cell(self) -> int:
        """A, the number of anchors at each cell."""
        return len(self.cell)

    def forward(self, height: int, width: int) -> Tensor:
        """Anchors of a map of `height` x `width` cells: ``[height * width * A, 4]``."""
        device = self.cell.device
        x = (torch.arange(width, device=device, dtype=torch.float32) + self.offset) * self.stride
        y = (torch.arange(height, device=device, dtype=torch.float32) + self.offset) * self.stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((columns, rows, columns, rows), dim=-1)  # [H, W, 4]
        return (shifts[:, :, None] + self.cell).reshape(-1, 4)  # [H * W * A, 4]


def _around_origin(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    anchors = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = (size**2 / ratio) ** 0.5
            height = ratio * width
            anchors.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(anchors, dtype=torch.float32)
