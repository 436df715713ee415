from __future__ import annotations

import os
import shutil
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.voc_folder import make_voc_folder
from utils.app.editor import SUGGESTION, editor_colors, from_editor, text_of, to_editor, to_html
from utils.app.label import LabelBox, LabelFolder, accept, add_suggestions
from utils.app.label_session import LabelSession
from utils.cli.class_names import MODEL_DATA, read_class_names
from utils.cli.errors import UserError
from utils.cli.shared_config import DataConfig
from utils.data.prepare import prepare_splits
from utils.data.voc_xml import VocObject, read_annotation, write_annotation

CAT, DOG = VocObject("cat", (10.0, 10.0, 50.0, 40.0)), VocObject("dog", (20.0, 5.0, 60.0, 30.0))
NAMES = ("cat", "dog")


def make_image(path: Path, size: tuple[int, int] = (80, 60), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def load_none():
    raise UserError("no weights")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        make_image(tmp_path / f"{name}.jpg")
    write_annotation(tmp_path / "a.xml", "a.jpg", 80, 60, [CAT, DOG])
    return tmp_path


def test_no_boxes_come_back_as_none():
    assert from_editor([], []) == []
    assert to_editor([], NAMES) == []


@pytest.mark.parametrize("zoom", [1, 2, 3])
def test_an_enlarged_image_keeps_the_pixels_of_its_boxes(zoom: int):
    boxes = [LabelBox(CAT, 0), LabelBox(DOG, 1)]
    values = to_editor(boxes, NAMES, zoom)
    assert values[0]["xmax"] == 50 * zoom
    assert from_editor(values, boxes, zoom) == boxes
    values[0]["xmin"] += zoom
    assert from_editor(values, boxes, zoom)[0].item.box == (11.0, 10.0, 50.0, 40.0)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (CAT, "cat"),
        (VocObject("cat", CAT.box, True), "cat (difficult)"),
        (VocObject("cat", CAT.box, False, 0.834), "cat 0.83?"),
        (VocObject("cat", CAT.box, False, 7.5), "cat 0.00?"),
        (VocObject("cat 2 (old)", CAT.box, True, 1.0), "cat 2 (old) (difficult) 1.00?"),
    ],
)
def test_the_text_of_a_box_says_all_of_it(item, text):
    assert text_of(item) == text
    boxes = [LabelBox(item, 3)]
    assert from_editor(to_editor(boxes, [item.name]), boxes) == boxes


def test_a_suggestion_has_a_color_of_its_own():
    names = [*read_class_names(MODEL_DATA / "voc_classes.txt"), *map(str, range(20))]
    distances = np.linalg.norm(np.array(editor_colors(names)) - SUGGESTION, axis=1)
    assert distances.min() > 100  # of 441 between black and white


@pytest.mark.parametrize("sent", [[], [LabelBox(CAT, 0)]])
def test_only_a_suggestion_has_a_score(sent: list[LabelBox]):
    (value,) = to_editor(sent or [LabelBox(CAT)], NAMES)
    value["label"] = "rev 0.50?"
    (one,) = from_editor([value], sent)
    assert one.item == VocObject("rev 0.50?", CAT.box)


def test_the_editor_gives_back_each_box_as_what_it_was():
    boxes = [LabelBox(CAT, 0), LabelBox(DOG, 1), LabelBox(VocObject("dog", CAT.box, score=0.5))]
    values = to_editor(boxes, NAMES)
    new = {"label": "cat", "color": (16, 32, 48), "xmin": 1, "ymin": 2, "xmax": 9, "ymax": 8}
    newer = new | {"xmax": 11}
    moved = values[1] | {"xmin": 70, "xmax": 79}
    accepted = values[2] | {"label": "dog"}
    found = from_editor([newer, new, moved, accepted], boxes)  # the cat is deleted
    assert found == [
        LabelBox(VocObject("dog", (70.0, 5.0, 79.0, 30.0)), 1),
        LabelBox(VocObject("dog", CAT.box)),
        LabelBox(VocObject("cat", (1.0, 2.0, 9.0, 8.0))),
        LabelBox(VocObject("cat", (1.0, 2.0, 11.0, 8.0))),
    ]


def test_a_box_with_another_color_is_known_by_its_place():
    boxes = [LabelBox(CAT, 0), LabelBox(DOG, 1)]
    values = [value | {"color": (0, 0, 0)} for value in to_editor(boxes, NAMES)]
    values[0] |= {"label": "dog", "xmin": 12}
    found = from_editor(values, boxes)
    assert found == [LabelBox(VocObject("dog", (12.0, *CAT.box[1:])), 0), LabelBox(DOG, 1)]


def test_a_rotated_editor_is_refused():
    with pytest.raises(UserError, match="rotate it back"):
        from_editor([], [], orientation=1)


def test_suggestions_do_not_cover_objects_and_start_at_a_score():
    suggestions = [
        LabelBox(VocObject("cat", CAT.box, score=0.9)),
        LabelBox(VocObject("dog", DOG.box, score=0.3)),
    ]
    assert add_suggestions([], suggestions, 0.5) == suggestions[:1]
    assert add_suggestions([LabelBox(CAT, 0)], suggestions, 0.0) == [LabelBox(CAT, 0), suggestions[1]]
    assert [one.is_suggestion for one in accept(suggestions)] == [False, False]


def test_a_folder_without_images_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no images"):
        LabelFolder(tmp_path, load_none)


def test_images_without_xml_come_first_by_their_score(folder: Path):
    found = LabelFolder(folder, load_none)
    assert found.describe_progress() == "1 of 3 images labelled"
    found.scores |= {"b": 0.9, "c": 0.2}
    assert [found.choose_next(seen) for seen in ((), "c", "cb", "cba")] == ["c", "b", "a", None]


def test_opening_and_saving_without_a_change_leaves_the_file_alone(folder: Path):
    before = (folder / "a.xml").read_bytes()
    found = LabelFolder(folder, load_none)
    opened, image = found.open("a")
    assert image.shape == (60, 80, 3)
    assert [one.item for one in opened.boxes] == [CAT, DOG]
    found.save(opened, from_editor(to_editor(opened.boxes, NAMES), opened.boxes))
    assert (folder / "a.xml").read_bytes() == before


def test_saved_boxes_are_those_that_were_accepted(folder: Path):
    found = LabelFolder(folder, load_none)
    opened, _ = found.open("b")
    suggestion = LabelBox(VocObject("dog", DOG.box, score=0.9))
    saved = found.save(opened, [LabelBox(CAT), suggestion])
    assert read_annotation(folder / "b.xml").objects == (CAT,)
    assert found.describe_progress() == "2 of 3 images labelled"
    found.save(saved, [*saved.boxes, *accept([suggestion])])
    assert read_annotation(folder / "b.xml").objects == (CAT, DOG)


def test_an_image_without_objects_gets_an_xml_without_objects(folder: Path):
    found = LabelFolder(folder, load_none)
    found.save(found.open("b")[0], [])
    assert read_annotation(folder / "b.xml").objects == ()


@pytest.mark.parametrize("change", ["edited", "removed", "new"])
def test_a_file_that_changed_meanwhile_is_not_overwritten(folder: Path, change: str):
    found = LabelFolder(folder, load_none)
    opened, _ = found.open("b" if change == "new" else "a")
    path = opened.xml_path
    if change == "removed":
        path.unlink()
    else:
        write_annotation(path, "x.jpg", 80, 60, [DOG])
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(UserError, match="changed on disk since it was opened; not saved"):
        found.save(opened, [LabelBox(CAT)])
    assert (path.read_bytes() if path.exists() else None) == before


def test_two_tabs_do_not_lose_each_others_work(folder: Path):
    found = LabelFolder(folder, load_none)
    first, second = (found.open("a")[0] for _ in range(2))
    found.save(first, [*first.boxes, LabelBox(CAT)])
    with pytest.raises(UserError, match="not saved"):
        found.save(second, [])
    assert len(read_annotation(folder / "a.xml").objects) == 3


@pytest.mark.parametrize("_round", range(10))
def test_two_programs_that_save_at_once_do_not_lose_each_others_work(folder: Path, _round: int):
    saved: list[str] = []
    start = threading.Barrier(2)

    def save(name: str) -> None:
        program = LabelFolder(folder, load_none)
        opened, _ = program.open("a")
        start.wait()
        with suppress(UserError):
            program.save(opened, [*opened.boxes, LabelBox(replace(CAT, name=name))])
            saved.append(name)

    programs = [threading.Thread(target=save, args=[name]) for name in ("one", "two")]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    assert [item.name for item in read_annotation(folder / "a.xml").objects] == ["cat", "dog", *saved]


def test_a_folder_that_is_gone_is_not_made_again(folder: Path):
    found = LabelFolder(folder, load_none)
    opened, _ = found.open("b")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="the folder is gone; not saved"):
        found.save(opened, [LabelBox(CAT)])
    assert not folder.exists()


def test_boxes_are_not_saved_for_an_image_of_another_size(folder: Path):
    found = LabelFolder(folder, load_none)
    opened, _ = found.open("b")
    make_image(folder / "b.jpg", (40, 30))
    with pytest.raises(UserError, match=r"b\.jpg: another image than was opened; not saved"):
        found.save(opened, [LabelBox(CAT)])
    assert not (folder / "b.xml").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="no file names of any bytes")
def test_a_file_name_that_is_not_utf8_is_shown_and_saved(folder: Path):
    name = os.fsdecode(b"latin\xe9")
    (folder / "b.jpg").rename(folder / f"{name}.jpg")
    session = LabelSession(LabelFolder(folder, load_none))
    session.jump("latin\\xe9", None, 1.0)
    session.save({"boxes": [], "orientation": 0})
    assert (folder / f"{name}.xml").exists()
    for text in (*session.folder.images, to_html(f"{session.describe()} {session.message}")):
        text.encode("utf-8")


def test_a_box_without_a_class_is_not_saved(folder: Path):
    found = LabelFolder(folder, load_none)
    with pytest.raises(UserError, match="1 box without a class"):
        found.save(found.open("b")[0], [LabelBox(VocObject("", CAT.box))])
    assert not (folder / "b.xml").exists()


def test_an_annotation_outside_of_the_folder_is_not_written(folder: Path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "b.xml"
    write_annotation(outside, "b.jpg", 80, 60, [CAT])
    (folder / "b.xml").symlink_to(outside)
    before = outside.read_bytes()
    found = LabelFolder(folder, load_none)
    with pytest.raises(UserError, match="leads out of"):
        found.save(found.open("b")[0], [])
    assert outside.read_bytes() == before


def test_new_annotations_are_where_the_layout_has_them(tmp_path: Path):
    make_voc_folder(tmp_path, train_images=2, val_images=1)
    (tmp_path / "Annotations" / "1.xml").unlink()
    make_image(tmp_path / "JPEGImages" / "sub" / "x.jpg")
    found = LabelFolder(tmp_path, load_none)
    for key in ("1", "sub/x"):
        found.save(found.open(key)[0], [LabelBox(CAT)])
        assert read_annotation(tmp_path / "Annotations" / f"{key}.xml").objects == (CAT,)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [False, True])
def test_boxes_on_images_rotated_by_exif_are_as_the_reader_of_training_has_them(
    tmp_path: Path, orientation: int, stored: bool
):
    make_image(tmp_path / "a.jpg", (80, 60), orientation)
    width, height = (60, 80) if orientation >= 5 and not stored else (80, 60)
    write_annotation(tmp_path / "a.xml", "a.jpg", width, height, [VocObject("cat", (5, 6, 30, 50))])
    found = LabelFolder(tmp_path, load_none)
    opened, image = found.open("a")
    (box,) = opened.boxes
    assert image.shape[:2] == (opened.header.height, opened.header.width)
    x1, y1, x2, y2 = box.item.box
    moved = LabelBox(VocObject("cat", (x1 + 1, y1 + 2, x2, y2)), 0)
    added = LabelBox(VocObject("dog", (2, 3, 20, 30)))
    found.save(opened, [moved, added])
    dataset, _ = prepare_splits(DataConfig(str(tmp_path)), ["all"])
    objects = dataset.objects(0)
    assert objects.boxes.tolist() == [list(moved.item.box), list(added.item.box)]


def test_an_unreviewed_object_is_a_suggestion_and_stays_until_it_is_accepted(folder: Path):
    scored = VocObject("cat", CAT.box, score=0.5)
    write_annotation(folder / "a.xml", "a.jpg", 80, 60, [scored])
    found = LabelFolder(folder, load_none)
    opened, _ = found.open("a")
    (box,) = opened.boxes
    assert box.is_suggestion
    opened = found.save(opened, [box, LabelBox(DOG)])
    assert read_annotation(folder / "a.xml").objects == (scored, DOG)
    found.save(opened, accept(opened.boxes))
    assert read_annotation(folder / "a.xml").objects == (CAT, DOG)


@pytest.fixture
def session(folder: Path, weights: Path) -> LabelSession:
    def load():
        from utils.inference.predictor import Predictor

        return Predictor.from_checkpoint(weights, device="cpu", conf=0.05)

    return LabelSession(LabelFolder(folder, load))


def value_of(session: LabelSession) -> dict:
    return {"boxes": session.editor_boxes(), "orientation": 0}


def test_images_without_xml_are_ranked_until_stopped(session: LabelSession, folder: Path):
    (folder / "c.jpg").write_bytes(b"no image")
    session.folder.rank(lambda: True)
    assert session.folder.scores == {}
    session.folder.rank(lambda: False)
    assert session.folder.scores == {"b": 0.0, "c": 0.0}  # untrained weights find nothing


def test_a_session_goes_forth_and_back_and_skips_what_cannot_be_read(session: LabelSession, folder: Path):
    (folder / "b.jpg").write_bytes(b"no image")
    session.folder.scores |= {"b": 0.1, "c": 0.2}
    opened = []
    for step in (1, 1, 1, -1, -1):
        session.move(step, None, 1.0)
        opened.append((session.opened.key, session.message))
    (first, problem), (second, _), (third, last), (fourth, _), (fifth, start) = opened
    assert (first, second, third, fourth, fifth) == ("c", "a", "a", "c", "c")
    assert "b.jpg: not an image that can be read" in problem
    assert last == "this was the last image"
    assert "this is the first image" in start


def test_a_broken_xml_is_skipped_and_left_alone(session: LabelSession, folder: Path):
    (folder / "a.xml").write_text("<annotation>")
    with pytest.raises(UserError, match=r"a\.xml: not well-formed"):
        session.jump("a", None, 1.0)
    assert session.opened is None
    assert (folder / "a.xml").read_text() == "<annotation>"


def test_a_session_saves_only_changes(session: LabelSession, folder: Path):
    session.jump("a", None, 1.0)
    assert not session.has_changes(value_of(session))
    value = value_of(session)
    value["boxes"][0]["label"] = "horse"
    assert session.has_changes(value)
    session.save(value)
    assert session.message == f"saved 2 objects in {folder / 'a.xml'}"
    assert "horse" in session.folder.class_names
    assert not session.has_changes(value_of(session))


@pytest.mark.parametrize(("name", "names"), [("cat", ["cat", "dog"]), ("cow", ["cow"])])
def test_the_classes_of_a_model_for_the_same_classes_are_offered(
    session: LabelSession, folder: Path, name: str, names: list[str]
):
    write_annotation(folder / "a.xml", "a.jpg", 80, 60, [VocObject(name, CAT.box)])
    found = LabelFolder(folder, session.folder._load)
    assert found.class_names == [name]
    found.predictor()
    assert found.class_names == names


def test_a_new_class_needs_a_name(session: LabelSession):
    session.jump("a", None, 1.0)
    with pytest.raises(UserError, match="type the name of the new class"):
        session.add_class(" ", value_of(session))
    for message in ("added the class cow", "the class cow is there already"):
        session.add_class("cow", value_of(session))
        assert session.message == message


def test_going_on_saves_what_was_changed(session: LabelSession, folder: Path):
    session.jump("a", None, 1.0)
    value = value_of(session)
    del value["boxes"][1]
    session.move(1, value, 1.0)
    assert read_annotation(folder / "a.xml").objects == (CAT,)
    session.jump("a", value_of(session), 1.0)
    assert not (folder / "b.xml").exists()


def test_suggestions_are_never_written(session: LabelSession, folder: Path):
    session.jump("b", None, 0.05)
    session.folder.predictor()
    session._suggested = [LabelBox(VocObject("cat", CAT.box, score=0.4))]
    session.suggest(value_of(session), 0.3)
    assert [one.item.score for one in session.shown] == [0.4]
    assert not session.has_changes(value_of(session))
    session.save(value_of(session))
    assert read_annotation(folder / "b.xml").objects == ()
    assert "1 suggestion not accepted" in session.message
    session.accept_all(value_of(session))
    session.save(value_of(session))
    assert read_annotation(folder / "b.xml").objects == (CAT,)


@pytest.mark.parametrize("leave", [False, True])
def test_a_changed_suggestion_that_goes_back_is_named(session: LabelSession, folder: Path, leave: bool):
    write_annotation(folder / "a.xml", "a.jpg", 80, 60, [CAT, VocObject("dog", DOG.box, score=0.5)])
    before = (folder / "a.xml").read_bytes()
    session.jump("a", None, 1.0)
    value = value_of(session)
    value["boxes"][1]["xmin"] += 5 * session._zoom
    session.add_class("cow", value)  # which shows it where it was moved to
    if leave:
        session.move(1, value_of(session), 1.0)
    else:
        session.save(value_of(session))
    assert session.message.endswith("1 changed suggestion not accepted")
    assert (folder / "a.xml").read_bytes() == before
    session.jump("a", None, 1.0)
    session.save(value_of(session))
    assert "not accepted" not in session.message


def test_an_editor_without_a_value_deletes_nothing(session: LabelSession, folder: Path):
    before = (folder / "a.xml").read_bytes()
    session.jump("a", None, 1.0)
    for act in (lambda: session.save(None), lambda: session.accept_all(None)):
        with pytest.raises(UserError, match="the editor is empty; nothing is saved"):
            act()
    assert (folder / "a.xml").read_bytes() == before


def test_weights_that_cannot_be_loaded_leave_labeling_without_suggestions(folder: Path):
    def load():
        raise UserError("best.pth: broken")

    session = LabelSession(LabelFolder(folder, load))
    session.move(1, None, 0.5)
    assert session.opened is not None
    assert "no suggestions: best.pth: broken" in session.describe()


@pytest.mark.parametrize("name", ["x (difficult)", "cat 0.83?", '<i>"&|</i>', "😀", "difficult"])
def test_any_class_name_comes_back_as_it_is(session: LabelSession, folder: Path, name: str):
    write_annotation(folder / "a.xml", "a.jpg", 80, 60, [VocObject(name, CAT.box)])
    session.jump("a", None, 1.0)
    assert not session.has_changes(value_of(session))
    value = value_of(session)
    value["boxes"][0]["xmin"] = 0
    session.save(value)
    assert read_annotation(folder / "a.xml").objects == (VocObject(name, (0.0, *CAT.box[1:])),)


def test_an_image_removed_meanwhile_is_saved_and_left(session: LabelSession, folder: Path):
    session.jump("b", None, 1.0)
    (folder / "b.jpg").unlink()
    session.shown = [LabelBox(CAT)]
    session.move(1, value_of(session), 1.0)
    assert read_annotation(folder / "b.xml").objects == (CAT,)
    assert session.opened.key != "b"


def test_more_boxes_than_the_editor_has_numbers_for_are_skipped(session: LabelSession, folder: Path):
    write_annotation(folder / "a.xml", "a.jpg", 80, 60, [CAT] * 4096)
    session.jump("b", None, 1.0)
    with pytest.raises(UserError, match=r"a\.xml: 4096 objects; the editor shows at most 4095"):
        session.jump("a", None, 1.0)
    assert session.opened.key == "b"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_skipped(folder: Path):
    os.mkfifo(folder / "b.xml")
    with pytest.raises(UserError, match=r"b\.xml: not a regular file"):
        LabelFolder(folder, load_none).open("b")


def test_a_class_that_xml_cannot_hold_is_refused(folder: Path):
    found = LabelFolder(folder, load_none)
    before = (folder / "a.xml").read_bytes()
    opened, _ = found.open("a")
    with pytest.raises(UserError, match=r"U\+0001, which XML cannot hold"):
        found.save(opened, [LabelBox(VocObject("a\x01b", CAT.box))])
    assert (folder / "a.xml").read_bytes() == before
