from itertools import combinations

from utils.cli.class_names import MODEL_DATA, read_class_names
from utils.vision.colors import class_colors

VOC = tuple(read_class_names(MODEL_DATA / "voc_classes.txt"))
COCO = tuple(read_class_names(MODEL_DATA / "coco_classes.txt"))


def test_no_class_has_no_color():
    assert class_colors(()) == ()


def test_colors_of_one_model_differ():
    for names in (VOC, COCO, tuple(f"class {number}" for number in range(300))):
        assert len(set(class_colors(names))) == len(names)


def test_the_first_twenty_are_far_apart():
    for names in (VOC, tuple(f"part {number}" for number in range(20))):
        for first, second in combinations(class_colors(names), 2):
            assert sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5 > 40


def test_a_class_has_one_color_in_every_model():
    voc = dict(zip(VOC, class_colors(VOC), strict=True))
    coco = dict(zip(COCO, class_colors(COCO), strict=True))
    assert coco["person"] == voc["person"]
    assert coco.get("airplane", coco.get("aeroplane")) == voc["aeroplane"]  # two spellings
    assert class_colors(("car", "plate"))[0] == voc["car"]
    assert class_colors(("plate", "car")) == class_colors(("car", "plate"))[::-1]
