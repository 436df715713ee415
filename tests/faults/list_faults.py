"""Faults in split lists, class lists and anchor files; each function is a row of the table."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from tests.faults.workspace import ANCHORS, DATA, Workspace

LIST_FAULTS: dict[str, Callable[[Workspace], object]] = {}


def row(make: Callable[[Workspace], object]) -> Callable[[Workspace], object]:
    LIST_FAULTS[make.__name__] = make
    return make


def edited(name: str, list_name: str, change: Callable[[str], str | bytes]) -> None:
    """Register the row that rewrites a list."""

    def make(workspace: Workspace) -> None:
        beside = list_name in ("classes.txt", "anchors.txt")
        path = (workspace.folder if beside else workspace.lists) / list_name
        content = change(path.read_text())
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    LIST_FAULTS[name] = make


@row
def split_missing(workspace: Workspace) -> None:
    (workspace.lists / "train.txt").unlink()


@row
def split_no_voc(workspace: Workspace) -> None:
    shutil.rmtree(workspace.folder / DATA)


@row
def split_overlap(workspace: Workspace) -> None:
    with (workspace.lists / "val.txt").open("a") as file:
        file.write("000001\n000002\n")


@row
def split_duplicate(workspace: Workspace) -> None:
    for path in workspace.lists.iterdir():
        path.write_text(path.read_text() + path.read_text())


edited("split_empty", "train.txt", lambda text: "")
edited("split_val_empty", "val.txt", lambda text: "\n")
edited("split_unknown_id", "train.txt", lambda text: f"{text}000099\n")
edited("split_crlf_blank", "train.txt", lambda text: "\r\n" + text.replace("\n", "  \r\n\r\n ").rstrip())
edited("split_columns", "train.txt", lambda text: "000001  1\n000002 -1\n000003  0\n000004\t1\n")
edited("split_bom", "train.txt", lambda text: text.encode("utf-8-sig"))
edited("split_traversal", "train.txt", lambda text: f"{text}../../outside\n")
edited("split_binary", "train.txt", lambda text: np.random.default_rng(0).bytes(2000))
edited("split_with_ext", "train.txt", lambda text: text.replace("\n", ".jpg\n"))

edited("cfg_classes_empty", "classes.txt", lambda text: "")
edited("cfg_classes_duplicate", "classes.txt", lambda text: f"{text}square\n")
edited("cfg_classes_blanks", "classes.txt", lambda text: "\ufeffsquare  \r\n\r\n circle")
edited("cfg_classes_gbk", "classes.txt", lambda text: "方块\n圆\n".encode("gbk"))


@row
def cfg_classes_missing(workspace: Workspace) -> None:
    (workspace.folder / "classes.txt").unlink()


edited("cfg_anchors_odd", "anchors.txt", lambda text: f"{text}, 7")
edited("cfg_anchors_text", "anchors.txt", lambda text: text.replace("37", "wide"))
edited("cfg_anchors_zero", "anchors.txt", lambda text: text.replace("23,27, 37,58", "nan,27, 0,-5"))
edited("cfg_anchors_few", "anchors.txt", lambda text: "10,14, 23,27, 37,58")
edited("cfg_anchors_empty", "anchors.txt", lambda text: "")
edited("cfg_anchors_lines", "anchors.txt", lambda text: ANCHORS.replace(", ", "\n") + ",\n")
