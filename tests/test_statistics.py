"""A data set counted, and its figures as plots."""

import four_images
import numpy as np
import pytest

from data.coco import CocoDataset
from data.statistics import gather_statistics, size_of
from scripts.gallery.plots import DARK, LIGHT, plot_statistics, rendered


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    root = tmp_path_factory.mktemp("coco")
    four_images.write(root)
    return CocoDataset(annotations=root / "all.json", images=root / "images")


def test_the_statistics_count_objects_and_not_crowds(dataset: CocoDataset) -> None:
    statistics = gather_statistics(dataset)
    summary = statistics.summary()
    assert statistics.objects_per_image.tolist() == [2, 1, 1, 0]
    assert summary["images_without_objects"] == summary["crowd_regions"] == 1
    assert summary["categories"] == {"cat": 3, four_images.NAMES[1]: 1}
    assert summary["sizes"] == {"small": 1, "medium": 2, "large": 1}
    assert summary["objects_per_image"] == {"mean": 1.0, "median": 1.0, "most": 2}


def test_sizes_are_divided_at_cocos_borders() -> None:
    areas = (1023.9, 1024, 9216, 9216.1)
    assert [size_of(area) for area in areas] == ["small", "medium", "medium", "large"]


def test_plots_show_the_figures(dataset: CocoDataset) -> None:
    plots = plot_statistics(gather_statistics(dataset), LIGHT)
    texts = {
        name: " ".join(text.get_text() for text in figure.axes[0].texts)
        for name, figure in plots.items()
    }
    assert "1 of 4 without objects" in texts["objects_per_image"]
    assert "small\n25 %" in texts["sizes"] and "large\n25 %" in texts["sizes"]
    assert texts["categories"].split() == ["3", "1"]
    bars = [bar.get_height() for bar in plots["objects_per_image"].axes[0].patches]
    assert bars == [2, 1, 1]  # one object, two, none


def test_a_data_set_without_objects_is_plotted(dataset: CocoDataset) -> None:
    statistics = gather_statistics(dataset)
    bare = type(statistics)(
        statistics.names, np.zeros(2, np.int64), np.zeros(0), np.zeros(0, np.int64), 0
    )
    for figure in plot_statistics(bare, DARK).values():
        assert rendered(figure, "png").startswith(b"\x89PNG")


def test_many_categories_end_in_one_bar(dataset: CocoDataset) -> None:
    statistics = gather_statistics(dataset)
    names = tuple(f"class {k:02d}" for k in range(80))
    labels = np.repeat(np.arange(80), 2)
    many = type(statistics)(names, statistics.objects_per_image, np.ones(160), labels, 0)
    axes = plot_statistics(many, LIGHT)["categories"].axes[0]
    assert axes.get_yticklabels()[-1].get_text() == "55 more"
    assert sum(bar.get_width() for bar in axes.patches) == 160
