"""Image faults, and unusual images that are none; each function is a row of the table."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.workspace import HEIGHT, SQUARE, WIDTH, Workspace, draw, item, size

IMAGE_FAULTS: dict[str, Callable[[Workspace], object]] = {}
TURNED_BOX = (21, 61, 80, 160)  # in a picture of 150x200, as VOC counts


def row(make: Callable[[Workspace], object]) -> Callable[[Workspace], object]:
    IMAGE_FAULTS[make.__name__] = make
    return make


def holding(name: str, content: bytes) -> None:
    """Register the row whose image file holds these bytes."""
    IMAGE_FAULTS[name] = lambda workspace: workspace.image.write_bytes(content)


def saved(name: str, change: Callable[[Image.Image], Image.Image], format_name: str, **options: Any) -> None:
    """Register the row whose image is the picture after a change, in this format under .jpg."""
    IMAGE_FAULTS[name] = lambda workspace: change(workspace.picture()).save(
        workspace.image, format_name, **options
    )


def suffixed(name: str, suffix: str) -> None:
    """Register the row whose image file ends so."""
    IMAGE_FAULTS[name] = lambda workspace: workspace.image.rename(workspace.image.with_suffix(suffix))


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
def img_truncated(workspace: Workspace) -> None:
    halve(workspace.image)


@row
def img_truncated_png(workspace: Workspace) -> None:
    workspace.picture().save(workspace.image, "PNG")
    halve(workspace.image)


@row
def img_truncated_in_val(workspace: Workspace) -> None:
    halve(workspace.image.with_name("000006.jpg"))


holding("img_zero_bytes", b"")
holding("img_html", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
holding("img_lfs_pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")


@row
def img_is_directory(workspace: Workspace) -> None:
    workspace.image.unlink()
    workspace.image.mkdir()


@row
def img_missing(workspace: Workspace) -> None:
    workspace.image.unlink()


suffixed("img_upper_ext", ".JPG")
suffixed("img_jpeg_ext", ".jpeg")
saved("img_png_named_jpg", lambda picture: picture, "PNG")
saved("img_cmyk", lambda picture: picture.convert("CMYK"), "JPEG", quality=95)
saved("img_gray", lambda picture: picture.convert("L"), "JPEG", quality=95)
saved("img_palette", lambda picture: picture.quantize(64), "PNG", transparency=0)
saved("img_bilevel", lambda picture: picture.convert("1"), "PNG")


@row
def img_other_formats(workspace: Workspace) -> None:
    for number, suffix in ((1, ".png"), (2, ".bmp"), (3, ".webp")):
        path = workspace.image.with_name(f"{number:06}.jpg")
        path.unlink()
        draw(number).save(path.with_suffix(suffix), **({"lossless": True} if suffix == ".webp" else {}))


@row
def img_two_candidates(workspace: Workspace) -> None:
    workspace.picture().save(workspace.image.with_suffix(".png"))


@row
def img_gray16(workspace: Workspace) -> None:
    gray = np.asarray(workspace.picture().convert("L"), dtype=np.uint16) * 257
    Image.fromarray(gray).save(workspace.image, "PNG")


@row
def img_rgb16(workspace: Workspace) -> None:
    pixels = np.asarray(workspace.picture()).astype(">u2") * 257
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    png(workspace.image, WIDTH, HEIGHT, 16, 2, rows)


@row
def img_alpha(workspace: Workspace) -> None:
    picture = workspace.picture()
    picture.putalpha(Image.new("L", picture.size, 128))
    picture.save(workspace.image, "PNG")


@row
def img_animated(workspace: Workspace) -> None:
    workspace.picture().save(workspace.image, "GIF", save_all=True, append_images=[draw(98), draw(99)])


def turned(workspace: Workspace, stored: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    stored.save(workspace.image, quality=95, exif=exif)


@row
def img_exif_display(workspace: Workspace) -> None:
    """A picture displayed as 150x200 with a red box; the XML was written on what the labeler saw."""
    shown = framed(draw(1, HEIGHT, WIDTH), TURNED_BOX)
    turned(workspace, shown.transpose(Image.Transpose.ROTATE_90))
    workspace.write(item(box=TURNED_BOX), head=size(HEIGHT, WIDTH))


@row
def img_exif_stored(workspace: Workspace) -> None:
    """A picture stored as 200x150 with a red box; the XML was written on the stored pixels."""
    turned(workspace, framed(draw(1), SQUARE))
    workspace.write(item(box=SQUARE), head=size())


def framed(picture: Image.Image, box: tuple[int, ...]) -> Image.Image:
    """Fill a box, as VOC counts, with red."""
    xmin, ymin, xmax, ymax = box
    picture.paste((255, 0, 0), (xmin - 1, ymin - 1, xmax, ymax))
    return picture


@row
def img_bad_exif(workspace: Workspace) -> None:
    workspace.picture().save(
        workspace.image, quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnothing of the kind"
    )


@row
def img_1x1(workspace: Workspace) -> None:
    draw(1, 1, 1).save(workspace.image)
    workspace.write("", head=size(1, 1))


@row
def img_extreme_aspect(workspace: Workspace) -> None:
    draw(1, 3000, 2).save(workspace.image, quality=95)
    workspace.write(item(box=(11, 1, 2900, 2)), head=size(3000, 2))


@row
def img_bomb(workspace: Workspace) -> None:
    png(workspace.image, 20_000, 20_000, 1, 0, bytes(2501 * 20_000))


@row
def img_bomb_warn(workspace: Workspace) -> None:
    png(workspace.image, 10_000, 10_000, 1, 0, bytes(1251 * 10_000))


@row
def img_header_lies(workspace: Workspace) -> None:
    png(workspace.image, 2**31 - 1, 2**31 - 1, 8, 2, bytes(3 * WIDTH + 1))


@row
def img_trailing_bytes(workspace: Workspace) -> None:
    workspace.image.write_bytes(workspace.image.read_bytes() + bytes(1024))


@row
def img_unicode_space(workspace: Workspace) -> None:
    for path in (workspace.image, workspace.xml):
        path.rename(path.with_stem("图 片 é 1"))
    listed = workspace.lists / "train.txt"
    listed.write_text(listed.read_text().replace(workspace.image_id, "图 片 é 1"), encoding="utf-8")


@row
def img_unreadable(workspace: Workspace) -> None:
    workspace.image.chmod(0)


@row
def img_symlink_loop(workspace: Workspace) -> None:
    workspace.image.unlink()
    workspace.image.symlink_to(workspace.image.name)


@row
def img_symlink_dangling(workspace: Workspace) -> None:
    workspace.image.unlink()
    workspace.image.symlink_to("gone.jpg")


@row
def img_fifo(workspace: Workspace) -> None:
    workspace.image.unlink()
    os.mkfifo(workspace.image)


@row
def dir_symlink_loop(workspace: Workspace) -> None:
    (workspace.image.parent / "loop").symlink_to("..", target_is_directory=True)
