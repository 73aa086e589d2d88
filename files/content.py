"""What a file holds when it is not what its name says."""

from pathlib import Path

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
CONVERT = "convert it to JPEG or PNG"
# How files begin that people hand over by mistake, and what to do with them.
BEGINNINGS = (
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself", "run `git annex get`"),
    (b"\xff\x0a", "a JPEG XL picture", CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", CONVERT),
    (b"8BPS", "a Photoshop picture", CONVERT),
    (b"<svg", "an SVG picture", CONVERT),
    (b"%PDF", "a PDF", "name another file"),
    (b"\x89HDF", "an HDF5 file", "export it to another kind"),
    (b"\x93NUMPY", "a NumPy array", "export it to another kind"),
    (b"SQLite format 3", "an SQLite database", "export it to another kind"),
    (b"\x89PNG", "a PNG image", "name another file"),
    (b"\xff\xd8\xff", "a JPEG image", "name another file"),
)


def known_content(path: Path) -> tuple[str, str] | None:
    """What `path` is, and a remedy, where its beginning tells; None where it does not."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        return "a HEIC picture", CONVERT
    for beginning, what, remedy in BEGINNINGS:
        if start.startswith(beginning):
            return what, remedy
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, such as an error or a login instead of the file", "download it again"
    return None
