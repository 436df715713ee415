"""Makers of faults in images, each under the name of its row, and of what a reader must see in them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.room import HEIGHT, SQUARE, WIDTH, Room, draw, item, size

IMAGE_MAKERS: dict[str, Callable[[Room], object]] = {}
TURNED_BOX = (21, 61, 80, 160)  # in a picture of 150x200, as VOC counts


def row(make: Callable[[Room], object]) -> Callable[[Room], object]:
    IMAGE_MAKERS[make.__name__] = make
    return make


def holding(name: str, content: bytes) -> None:
    """Register the row whose image file holds these bytes."""
    IMAGE_MAKERS[name] = lambda room: room.image.write_bytes(content)


def saved(name: str, change: Callable[[Image.Image], Image.Image], format_name: str, **options: Any) -> None:
    """Register the row whose image is the picture after a change, in this format under .jpg."""
    IMAGE_MAKERS[name] = lambda room: change(room.picture()).save(room.image, format_name, **options)


def suffixed(name: str, suffix: str) -> None:
    """Register the row whose image file ends so."""
    IMAGE_MAKERS[name] = lambda room: room.image.rename(room.image.with_suffix(suffix))


def png(path: Path, width: int, height: int, depth: int, kind: int, rows: bytes) -> None:
    """Write a PNG by hand: rows hold a filter byte and the pixels each."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    for tag, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
    path.write_bytes(chunks)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@row
def img_truncated(room: Room) -> None:
    halve(room.image)


@row
def img_truncated_png(room: Room) -> None:
    room.picture().save(room.image, "PNG")
    halve(room.image)


@row
def img_truncated_in_val(room: Room) -> None:
    halve(room.image.with_name("000006.jpg"))


holding("img_zero_bytes", b"")
holding("img_html", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
holding(
    "img_lfs_pointer",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
)


@row
def img_is_directory(room: Room) -> None:
    room.image.unlink()
    room.image.mkdir()


@row
def img_missing(room: Room) -> None:
    room.image.unlink()


suffixed("img_upper_ext", ".JPG")
suffixed("img_jpeg_ext", ".jpeg")
saved("img_png_named_jpg", lambda picture: picture, "PNG")
saved("img_cmyk", lambda picture: picture.convert("CMYK"), "JPEG", quality=95)
saved("img_gray", lambda picture: picture.convert("L"), "JPEG", quality=95)
saved("img_palette", lambda picture: picture.quantize(64), "PNG", transparency=0)
saved("img_bilevel", lambda picture: picture.convert("1"), "PNG")


@row
def img_other_formats(room: Room) -> None:
    for number, suffix in ((1, ".png"), (2, ".bmp"), (3, ".webp")):
        path = room.image.with_name(f"{number:06}.jpg")
        path.unlink()
        draw(number).save(path.with_suffix(suffix), **({"lossless": True} if suffix == ".webp" else {}))


@row
def img_two_candidates(room: Room) -> None:
    room.picture().save(room.image.with_suffix(".png"))


@row
def img_gray16(room: Room) -> None:
    gray = np.asarray(room.picture().convert("L"), dtype=np.uint16) * 257
    Image.fromarray(gray).save(room.image, "PNG")


@row
def img_rgb16(room: Room) -> None:
    pixels = np.asarray(room.picture()).astype(">u2") * 257
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    png(room.image, WIDTH, HEIGHT, 16, 2, rows)


@row
def img_alpha(room: Room) -> None:
    picture = room.picture()
    picture.putalpha(Image.new("L", picture.size, 128))
    picture.save(room.image, "PNG")


@row
def img_animated(room: Room) -> None:
    room.picture().save(room.image, "GIF", save_all=True, append_images=[draw(98), draw(99)])


def turned(room: Room, stored: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    stored.save(room.image, quality=95, exif=exif)


@row
def img_exif_display(room: Room) -> None:
    """A picture displayed as 150x200 with a red box; the XML was written on what the labeler saw."""
    shown = framed(draw(1, HEIGHT, WIDTH), TURNED_BOX)
    turned(room, shown.transpose(Image.Transpose.ROTATE_90))
    room.write(item(box=TURNED_BOX), head=size(HEIGHT, WIDTH))


@row
def img_exif_stored(room: Room) -> None:
    """A picture stored as 200x150 with a red box; the XML was written on the stored pixels."""
    turned(room, framed(draw(1), SQUARE))
    room.write(item(box=SQUARE), head=size())


def framed(picture: Image.Image, box: tuple[int, ...]) -> Image.Image:
    """Fill a box, as VOC counts, with red."""
    xmin, ymin, xmax, ymax = box
    picture.paste((255, 0, 0), (xmin - 1, ymin - 1, xmax, ymax))
    return picture


@row
def img_bad_exif(room: Room) -> None:
    room.picture().save(room.image, quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnothing of the kind")


@row
def img_1x1(room: Room) -> None:
    draw(1, 1, 1).save(room.image)
    room.write("", head=size(1, 1))


@row
def img_extreme_aspect(room: Room) -> None:
    draw(1, 3000, 2).save(room.image, quality=95)
    room.write(item(box=(11, 1, 2900, 2)), head=size(3000, 2))


@row
def img_bomb(room: Room) -> None:
    png(room.image, 20_000, 20_000, 1, 0, bytes(2501 * 20_000))


@row
def img_bomb_warn(room: Room) -> None:
    png(room.image, 10_000, 10_000, 1, 0, bytes(1251 * 10_000))


@row
def img_header_lies(room: Room) -> None:
    png(room.image, 2**31 - 1, 2**31 - 1, 8, 2, bytes(3 * WIDTH + 1))


@row
def img_trailing_bytes(room: Room) -> None:
    room.image.write_bytes(room.image.read_bytes() + bytes(1024))


@row
def img_unicode_space(room: Room) -> None:
    for path in (room.image, room.xml):
        path.rename(path.with_stem("图 片 é 1"))
    listed = room.lists / "train.txt"
    listed.write_text(listed.read_text().replace(room.image_id, "图 片 é 1"), encoding="utf-8")


@row
def img_unreadable(room: Room) -> None:
    room.image.chmod(0)


@row
def img_symlink_loop(room: Room) -> None:
    room.image.unlink()
    room.image.symlink_to(room.image.name)


@row
def img_symlink_dangling(room: Room) -> None:
    room.image.unlink()
    room.image.symlink_to("gone.jpg")


@row
def img_fifo(room: Room) -> None:
    room.image.unlink()
    os.mkfifo(room.image)


@row
def dir_symlink_loop(room: Room) -> None:
    (room.image.parent / "loop").symlink_to("..", target_is_directory=True)
