"""Published data sets from their own layouts into COCO's form, downloaded or taken from disk."""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from data.coco import CocoDataset
from files import archives
from scripts import prepare_data
from tests import published_layouts as layouts
from tests.local_server import Server, serving

NAMES = ("coco", "voc", "pennfudan", "nuclei", "balloon")


def digest(path: Path) -> str:
    return archives.checksum_of(path, "md5")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the miniatures of all sets from this machine, with their checksums in the table."""
    monkeypatch.setenv("no_proxy", "*")
    store = tmp_path / "store"
    store.mkdir()
    with serving(store) as running:
        table = {}
        for name, published in prepare_data.SETS.items():
            root = tmp_path / "published" / name
            root.mkdir(parents=True)
            getattr(layouts, name)(root)
            served = []
            for archive in published.archives:
                path = pack(root, store / archive.name)
                served.append(prepare_data.Archive(running.address + archive.name, digest(path)))
            table[name] = replace(published, archives=tuple(served), counts=None)
        monkeypatch.setattr(prepare_data, "SETS", table)
        yield running


def pack(root: Path, path: Path) -> Path:
    """An archive of what lies in `root`; of COCO's folders, the one that its name tells."""
    kind = "tar" if path.suffix == ".tar" else "zip"
    inside = path.stem.split("_")[0]
    base = inside if (root / inside).is_dir() else "."
    shutil.make_archive(str(path.with_suffix("")), kind, root, base)
    return path


def prepared(name: str, folder: Path, *words: str) -> dict[str, CocoDataset]:
    """Prepare a set by the command line and read both splits back."""
    prepare_data.main([name, "--to", str(folder), *words])
    names = (
        {"train": "train2017", "val": "val2017"}
        if name == "coco"
        else {"train": "train", "val": "val"}
    )
    return {
        split: CocoDataset(
            annotations=folder / f"annotations/instances_{part}.json", images=folder / part
        )
        for split, part in names.items()
    }


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a refused command ends with."""
    with pytest.raises(SystemExit) as end:
        prepare_data.main(list(words))
    message = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(message) == 1 and message[0].startswith("error: ")
    return message[0]


@pytest.mark.parametrize("name", NAMES)
def test_one_command_downloads_and_prepares_a_set(
    name: str, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a set"
    splits = prepared(name, folder)
    message = capsys.readouterr().out.splitlines()
    assert all(dataset.problems.describe() == "" for dataset in splits.values())
    assert sum(line == "every image is sound" for line in message) == 2
    assert sum(line.endswith(", as published") for line in message) == len(server.asked)
    words = prepare_data.SETS[name].words
    assert message[-1] == f"python train.py {words} 'data.root={folder}'"
    assert [path.name for path in tmp_path.glob("a set*")] == ["a set"]


@pytest.mark.parametrize("name", NAMES)
def test_a_repeated_command_finds_what_is_done(
    name: str, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(name, tmp_path / "set")
    asked = len(server.asked)
    first = capsys.readouterr().out.splitlines()[-1]
    prepare_data.main([name, "--to", str(tmp_path / "set")])
    message = capsys.readouterr().out.splitlines()
    assert message[-2:] == [f"{tmp_path / 'set'}: is there already", first]
    assert len(server.asked) == asked


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unpacked", [False, True])
def test_what_is_on_the_disk_is_taken_without_a_download(
    name: str, unpacked: bool, server: Server, tmp_path: Path
) -> None:
    source = tmp_path / "published" / name if unpacked else tmp_path / "store"
    prepare_data.main([name, "--to", str(tmp_path / "set"), "--from", str(source)])
    assert server.asked == []
    assert (tmp_path / "set").exists() is not (name == "coco" and unpacked)


def test_a_single_archive_is_taken_whatever_its_name(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = pack(tmp_path / "published/nuclei", tmp_path / "mine.tar")
    prepared("nuclei", tmp_path / "set", "--from", str(other))
    assert f"mine.tar: {digest(other)}, another file than" in capsys.readouterr().out


def test_a_wrong_checksum_is_one_line_and_leaves_nothing(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (server.folder / "PennFudanPed.zip").write_bytes(b"another file")
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "set"))
    assert "PennFudanPed.zip: MD5 hash of downloaded file" in message and "expected md5:" in message
    assert "--from" in message
    assert not (tmp_path / "set").exists()
    assert list((tmp_path / "set.partial/archives").iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_is_one_line_and_goes_on_where_it_stopped(
    ranges: bool, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut, server.ranges = 200_000, ranges
    words = ("pennfudan", "--to", str(tmp_path / "set"))
    message = refusal(capsys, *words)
    assert "PennFudanPed.zip: the download stopped" in message and "--from" in message
    arrived = (tmp_path / "set.partial/archives/PennFudanPed.zip.part").stat().st_size
    assert 100_000 < arrived <= 200_000
    server.cut = None
    assert len(prepared("pennfudan", tmp_path / "set")["train"]) == 2
    assert server.asked == [0, arrived if ranges else 0]


def test_a_part_that_is_too_long_is_begun_anew(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "set.partial/archives/PennFudanPed.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1 << 20))
    words = ("pennfudan", "--to", str(tmp_path / "set"))
    assert "the download stopped (416" in refusal(capsys, *words)
    assert len(prepared("pennfudan", tmp_path / "set")["train"]) == 2


def test_a_file_that_is_not_served_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (server.folder / "PennFudanPed.zip").unlink()
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "set"))
    assert "the download stopped (404" in message


MARKERS = {
    "coco": "annotations_trainval2017.zip",
    "voc": "SegmentationObject",
    "pennfudan": "PedMasks",
    "nuclei": "*/masks",
    "balloon": "train/via_region_data.json",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_unexpected_layout_is_one_line(
    name: str, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "other"
    (source / "photos").mkdir(parents=True)
    message = refusal(capsys, name, "--to", str(tmp_path / "set"), "--from", str(source))
    assert f"{source}: has no {MARKERS[name]} in it" in message
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", ["set.zip", "set.tar"])
def test_an_archive_that_is_cut_short_is_one_line(
    name: str, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack(tmp_path / "published/pennfudan", tmp_path / name)
    path.write_bytes(path.read_bytes()[:200_000])
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "out"), "--from", str(path))
    assert f"{path}: is no whole .zip or .tar archive" in message


def test_an_entry_that_leads_out_of_an_archive_is_not_unpacked(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack(tmp_path / "published/pennfudan", tmp_path / "set.tar")
    with tarfile.open(path, "a") as archive:
        archive.add(path.parent / "store/PennFudanPed.zip", "../../outside.zip")
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "out"), "--from", str(path))
    assert "outside the destination" in message
    assert not list(tmp_path.rglob("outside.zip"))


def test_a_link_of_an_archive_is_not_unpacked(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack(tmp_path / "published/pennfudan", tmp_path / "set.tar")
    link = tarfile.TarInfo("PennFudanPed/link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(path, "a") as archive:
        archive.addfile(link)
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "out"), "--from", str(path))
    assert "PennFudanPed/link is neither a file nor a folder" in message
    assert not list((tmp_path / "out").rglob("link"))


@pytest.mark.parametrize("downloads", [True, False])
def test_too_little_room_is_one_line(
    downloads: bool,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    words = () if downloads else ("--from", str(server.folder))
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "set"), *words)
    assert "GB are needed here and 0.0 GB are free; make room" in message
    assert not (tmp_path / "set").exists()


def test_a_disk_that_fills_up_is_one_line(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "image.png")

    monkeypatch.setattr(prepare_data.shutil, "copyfile", full)
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path / "set"))
    assert (
        "image.png: No space left on device; make room, or name another folder by --to" in message
    )


def test_a_command_that_was_killed_is_made_good_by_the_next(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(prepare_data, "validate", interrupted)
        with pytest.raises(SystemExit):
            prepare_data.main(["pennfudan", "--to", str(tmp_path / "set")])
    assert not (tmp_path / "set").exists()
    assert len(prepared("pennfudan", tmp_path / "set")["train"]) == 2
    assert server.asked == [0]  # the archive was there
    assert not (tmp_path / "set.partial").exists()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_empty_folder_is_filled(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert len(prepared("pennfudan", tmp_path / "set")["train"]) == 2


def test_a_folder_that_holds_something_else_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    message = refusal(capsys, "pennfudan", "--to", str(tmp_path))
    assert f"{tmp_path}: has no annotations/instances_train.json, so it is not" in message
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_an_image_that_does_not_decode_is_named_and_nothing_is_made(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "published/pennfudan"
    broken = next((root / "PennFudanPed/PNGImages").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(SystemExit):
        prepare_data.main(["pennfudan", "--to", str(tmp_path / "set"), "--from", str(root)])
    message = capsys.readouterr().err
    assert f"{broken.name}: does not decode" in message and "1 of " in message
    assert not (tmp_path / "set").exists()


def test_a_set_without_checksum_is_known_by_its_counts(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published = prepare_data.SETS["pennfudan"]
    archive = replace(published.archives[0], checksum=None)
    for counts in (((2, 3), (1, 1)), ((2, 3), (1, 2))):
        changed = replace(published, archives=(archive,), counts=counts)
        monkeypatch.setitem(prepare_data.SETS, "pennfudan", changed)
        prepared("pennfudan", tmp_path / str(counts))
        message = capsys.readouterr().out
        assert "PennFudanPed.zip: sha256:" in message and "none is published" in message
        assert ("not the set that is known" in message) is (counts[1] == (1, 2))


def test_the_table_names_a_published_address_and_a_configuration_of_each_set() -> None:
    for name, published in prepare_data.SETS.items():
        cfg = prepare_data.composed("train", published.words.split())
        assert OmegaConf.is_missing(cfg.data, "root")
        for archive in published.archives:
            assert archive.url.startswith("http") and archive.name.endswith((".zip", ".tar"))
            assert archive.checksum is None or archive.checksum.startswith("md5:")
        assert published.terms and (published.read is None) == (name == "coco")


def rename_category(root: Path) -> None:
    path = root / "voc/VOCdevkit/VOC2012/Annotations/2007_000001.xml"
    path.write_text(path.read_text().replace("horse", "pony"))


def remove_validation(root: Path) -> None:
    for path in (root / "pennfudan/PennFudanPed/PNGImages").glob("PennPed*"):
        path.unlink()


def double_image(root: Path) -> None:
    id_ = next((root / "nuclei/stage1_train").iterdir()).name
    for number in range(7, 27):  # some of them fall into the same split
        other = root / "nuclei/stage1_train" / f"{id_[:16]}{number:048d}"
        layouts.write_image(other / "images" / f"{other.name}.png")
        (other / "masks").mkdir()


@pytest.mark.parametrize(
    ("name", "spoil", "expected"),
    [
        ("voc", rename_category, "has an object of the unknown category 'pony'"),
        ("pennfudan", remove_validation, "has no image of the val split"),
        ("nuclei", double_image, "a second image called"),
    ],
)
def test_what_a_set_cannot_be_made_of_is_one_line(
    name: str,
    spoil: Callable[[Path], None],
    expected: str,
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(tmp_path / "published")
    source = tmp_path / "published" / name
    message = refusal(capsys, name, "--to", str(tmp_path / "set"), "--from", str(source))
    assert expected in message
    assert not (tmp_path / "set").exists()
