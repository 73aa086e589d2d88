"""Archives from the net: downloaded, taken up again where they were cut, checked, unpacked."""

import contextlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pooch
import requests
from tqdm import tqdm

from ops.errors import InputError

CHUNK_BYTES = 1 << 16  # what a cut loses at most
Entry = TypeVar("Entry")


def download(url: str, checksum: str | None, folder: Path) -> Path:
    """Download a file into `folder`, or find it there.

    What arrived before a cut stays beside it as NAME.part, and the next call asks the server only
    for the rest.

    Args:
        url: of the file; its last part is the file's name.
        checksum: as `md5:...` or `sha256:...`; None where none is published.

    Raises:
        InputError: cut off, refused, another checksum, no room.
    """
    pooch.get_logger().setLevel("WARNING")
    name = url.rpartition("/")[2]
    elsewhere = "or download it in another way and name it by --from"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return Path(
            pooch.retrieve(
                url, checksum, fname=name, path=folder, downloader=_resume(folder / f"{name}.part")
            )
        )
    except requests.RequestException as error:
        raise InputError(
            f"{url}: the download stopped ({_in_one_line(error)}); the same command goes on where "
            f"it stopped, {elsewhere}"
        ) from None
    except InputError:
        raise
    except ValueError as error:  # the checksum; the file is deleted
        what = str(error).partition(". ")[0]
        raise InputError(f"{url}: {what}; give the same command again, {elsewhere}") from None


def _resume(part: Path) -> Callable[[str, str, Any], None]:
    """A downloader for pooch that collects the file in `part`, then moves it."""

    def downloader(url: str, output_file: str, _: Any) -> None:
        with contextlib.ExitStack() as opened:
            stream = opened.enter_context(part.open("ab"))
            have = stream.tell()

            def check_answer(response: requests.Response, **_: Any) -> None:
                opened.callback(response.close)
                if response.status_code in (200, 416):  # the whole file comes, or no such rest
                    stream.truncate(0)
                check_room(int(response.headers.get("content-length", 0)), part.parent)

            headers = {"Accept-Encoding": "identity"}  # offsets are of the file itself
            if have:
                headers["Range"] = f"bytes={have}-"
            bar = tqdm(
                total=1, desc=part.stem, unit="B", unit_scale=True, leave=False, disable=None
            )
            get = pooch.HTTPDownloader(
                progressbar=opened.enter_context(bar),
                chunk_size=CHUNK_BYTES,
                headers=headers,
                hooks={"response": check_answer},
            )
            get(url, stream, None)
        part.replace(output_file)

    return downloader


def checksum_of(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file as `sha256:...`."""
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip, or a .tar of any compression, into `folder`.

    Raises:
        InputError: no whole archive, entries that lead out of the folder, or no room.
    """
    try:
        if tarfile.is_tarfile(archive):  # asked first: a .tar may end with a .zip
            with tarfile.open(archive) as opened_tar:
                members = opened_tar.getmembers()
                check_room(sum(member.size for member in members), folder.parent)
                for member in members:
                    _check_stays_inside(member, folder)
                # Pythons before 3.10.12 and 3.11.4 have no filter; the check above serves them.
                opened_tar.extraction_filter = getattr(tarfile, "data_filter", None)
                for member in _with_bar(members, archive):
                    opened_tar.extract(member, folder)
        else:
            with zipfile.ZipFile(archive) as opened:
                files = [f for f in opened.infolist() if not f.filename.startswith("__MACOSX")]
                check_room(sum(file.file_size for file in files), folder.parent)
                for file in _with_bar(files, archive):
                    opened.extract(file, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError) as error:
        raise InputError(
            f"{archive}: is no whole .zip or .tar archive ({_in_one_line(error)}); get it again"
        ) from None


def _check_stays_inside(member: tarfile.TarInfo, folder: Path) -> None:
    if not (member.isfile() or member.isdir()):  # a link may lead anywhere
        raise tarfile.TarError(f"{member.name} is neither a file nor a folder")
    if not (folder / member.name).resolve().is_relative_to(folder.resolve()):
        raise tarfile.TarError(f"{member.name} lies outside the destination")


def _with_bar(entries: list[Entry], archive: Path) -> Iterable[Entry]:
    return tqdm(entries, f"unpacking {archive.name}", leave=False, unit="file", disable=None)


def check_room(needed: int, folder: Path) -> None:
    """InputError where the disk of `folder`, which must be there, has not `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {needed / 1e9:.1f} GB are needed here and {free / 1e9:.1f} GB are free; "
            "make room, or name a folder on another disk by --to"
        )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
