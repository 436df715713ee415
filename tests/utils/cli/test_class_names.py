import pytest

from utils.cli.class_names import choose_class_names, match_class_names, normalize_name, read_class_names
from utils.cli.errors import UserError

OWN = ("cat", "dog")
WARNING = "warning: w.pth: classes are called as --classes says"


@pytest.mark.parametrize(
    ("own", "given", "chosen", "said"),
    [
        (None, None, None, ""),
        (OWN, None, OWN, ""),
        (None, ("a",), ("a",), ""),
        (OWN, OWN, OWN, ""),
        (
            OWN,
            ("Katze", "dog"),
            ("Katze", "dog"),
            "warning: w.pth: classes renamed by --classes: cat is now Katze\n",
        ),
        (OWN, ("a", "b", "c"), ("a", "b", "c"), ""),  # their number is refused elsewhere
    ],
)
def test_names_that_are_given_beat_those_of_the_weights(capsys, own, given, chosen, said):
    assert choose_class_names("w.pth", own, given) == chosen
    assert capsys.readouterr().err == said


def test_names_that_look_the_same_are_the_same():
    assert normalize_name("") == ""
    assert normalize_name(" cafe\u0301\n") == "caf\u00e9"
    assert match_class_names(("tea", "cafe\u0301"), ("caf\u00e9",)) == [1]


def test_a_list_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / "classes.txt"
    names = [str(number) for number in range(10_000)]
    path.write_text("\n".join(names))
    assert read_class_names(path) == tuple(names)
    path.write_text("\n".join([*names, "one more"]))
    with pytest.raises(UserError, match=r"classes\.txt: 10001 class names; at most 10000"):
        read_class_names(path)


def test_the_weights_own_names_in_another_order_are_an_error():
    with pytest.raises(UserError, match="another order than --classes: cat, dog; remove --classes"):
        choose_class_names("w.pth", OWN, ("dog", "cat"))
