"""Recognising images by their first bytes, since names have many endings or none."""

from pathlib import PurePosixPath

HEAD_BYTES = 32
"""How many bytes of a file are enough to recognise it."""

#: The formats that are decoded, as Pillow calls them. Others are left out, above all EPS, which runs a program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: Files with these endings are images, and damaged where they can't be decoded.
_SUFFIXES = {
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".apng", ".png"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
_NETPBM = tuple(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n")
_BITMAP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

NO_IMAGE = "left out, not an image"
_HEIC_REASON = "left out, HEIC can't be decoded; convert it to JPEG or PNG"


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def why_left_out(head: bytes) -> str | None:
    """The reason not to decode a file without an image's ending; None if its first bytes are those of an image.

    Args:
        head: its first :data:`HEAD_BYTES` bytes.
    """
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIC:
        return _HEIC_REASON
    known = (
        head.startswith((*_MAGIC, *_NETPBM))
        or brand in (b"avif", b"avis")
        or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")
        or (head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS)
    )
    return None if known else "left out, empty" if not head else NO_IMAGE
