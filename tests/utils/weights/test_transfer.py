import dataclasses
from pathlib import Path

import pytest
import torch

from nets.attention import ATTENTION
from nets.config import USUAL_ANCHORS, ModelConfig
from utils.cli.errors import UserError
from utils.weights.load import WeightsFile
from utils.weights.own_block import build_network
from utils.weights.transfer import transfer

NAMES = ("person", "tvmonitor", "zebra")


def source(phi="none", **values):
    """Return a network and the file that its weights would make."""
    torch.manual_seed(1)
    model = build_network(ModelConfig(3, phi=phi, **values)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    path = Path("source.pth")
    return model, WeightsFile(path, model.config, NAMES, model.state_dict(), anchors_from=path)


THREE = dict(zip(("anchors", "anchor_masks"), USUAL_ANCHORS[3], strict=True))


def target(num_classes, phi="none"):
    torch.manual_seed(2)
    return build_network(ModelConfig(num_classes, phi=phi))


def places_of(report):
    """Return the places of the blocks that a report says start as a gain."""
    return [line.split()[3].rstrip(":") for line in report if "starts as a gain" in line]


def rows(body, image):
    """Return both raw maps as (A, 5+K, h, w)."""
    with torch.no_grad():
        return [raw[0].unflatten(0, (3, -1)) for raw in body.eval()(image)]


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
EVERYWHERE = ("c4", "c5", "up")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "their_places", "ours", "our_places"),
    [
        ("none", EVERYWHERE, "none", EVERYWHERE),
        ("cbam", EVERYWHERE, "cbam", EVERYWHERE),
        *(("none", EVERYWHERE, phi, EVERYWHERE) for phi in sorted(set(ATTENTION) - {"none", "simam"})),
        *(("none", EVERYWHERE, "cbam", places) for places in (("c4",), ("c5",), ("up",), ("c4", "up"))),
        ("ca", ("c5",), "ca", EVERYWHERE),
    ],
)
def test_copied_and_inserted_blocks_leave_the_heads_equal_bit_for_bit(theirs, their_places, ours, our_places):
    theirs_body, file = source(theirs, phi_at=their_places)
    body = build_network(ModelConfig(3, phi=ours, phi_at=our_places))
    report = transfer(body, NAMES, file)
    for expected, found in zip(rows(theirs_body, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(expected, found)
    inserted = set() if ours == "none" else set(our_places) - set(their_places if theirs != "none" else ())
    assert places_of(report) == sorted(inserted)


def test_class_rows_follow_the_name_and_box_rows_always_come():
    (theirs_body, file), body = source(), target(4)
    fresh = target(4).head_p5.predict.weight.unflatten(0, (3, -1))
    report = transfer(body, ("cell", "tv", "person", "worm"), file)  # tv is an alias of tvmonitor
    for theirs, ours in zip(rows(theirs_body, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(ours[:, :5], theirs[:, :5])
        assert torch.equal(ours[:, 6], theirs[:, 6])
        assert torch.equal(ours[:, 7], theirs[:, 5])
    assert torch.equal(body.head_p5.predict.weight.unflatten(0, (3, -1))[:, [5, 8]], fresh[:, [5, 8]])
    assert any("by name: tv, person" in line for line in report)
    assert any("start new: cell, worm" in line for line in report)


def test_another_attention_is_refused():
    with pytest.raises(UserError, match="made with attention=se, you asked for cbam"):
        transfer(target(3, "cbam"), NAMES, source("se")[1])


def test_published_insertion_leaves_the_blocks_as_they_initialise_themselves():
    (theirs_body, file), body = source(), target(3, "se")
    fresh = {name: value.clone() for name, value in target(3, "se").attention.state_dict().items()}
    report = transfer(body, NAMES, file, insert="published")
    assert all(torch.equal(value, body.attention.state_dict()[name]) for name, value in fresh.items())
    assert torch.equal(body.neck_p5.conv.weight, theirs_body.neck_p5.conv.weight)
    assert sum("--insert published" in line for line in report) == 3


class Third(torch.nn.Module):
    """A gain of 0.3, which is no power of two."""

    def __init__(self, channels):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.randn(channels))

    def forward(self, x):
        return x * self.gain[:, None, None]

    def start_constant(self):
        torch.nn.init.constant_(self.gain, 0.3)
        return 0.3


class Silent(torch.nn.Module):
    """A block that cannot start as a constant."""

    def __init__(self, channels):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x):
        return x * self.gain[:, None, None]


def test_new_blocks_leave_the_gradients_of_the_layers_around_them_equal():
    """Folded into the next convolution instead, a gain c would shrink its steps by c squared."""
    theirs_body, file = source()
    body = target(3, "cbam")
    transfer(body, NAMES, file)
    for model in (theirs_body, body):
        sum(raw.square().sum() for raw in model.eval()(IMAGE)).backward()
    for name in ("neck_p5.conv.weight", "head_p4.conv.conv.weight", "backbone.stem1.conv.weight"):
        expected, found = (model.get_parameter(name).grad for model in (theirs_body, body))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_a_constant_that_is_no_power_of_two_is_undone_closely():
    (theirs_body, file), body = source(), target(3, f"{__name__}:Third")
    transfer(body, NAMES, file)
    for theirs, ours in zip(rows(theirs_body, IMAGE), rows(body, IMAGE), strict=True):
        assert (theirs - ours).abs().max() <= 1e-4 * theirs.abs().max()


class Liar(Third):
    """A block that is no gain of what it says."""

    def start_constant(self):
        return 0.3


class Zero(Third):
    def start_constant(self):
        torch.nn.init.zeros_(self.gain)
        return 0.0


class Broken(Third):
    def start_constant(self):
        raise KeyError("boom")


@pytest.mark.parametrize("block", [Liar, Zero, Broken])
def test_a_start_constant_that_is_not_true_is_refused(block):
    with pytest.raises(UserError, match=rf"{block.__name__}.start_constant: (returns|KeyError)"):
        transfer(target(3, f"{__name__}:{block.__name__}"), NAMES, source()[1])


def test_a_block_without_a_constant_start_is_said():
    (_, file), body = source(), target(3, f"{__name__}:Silent")
    report = transfer(body, NAMES, file)
    assert sum("not function-preserving (Silent" in line for line in report) == 3
    assert all(torch.equal(block.gain, torch.full_like(block.gain, 0.5)) for block in body.attention.values())


def test_partial_takes_the_rest_of_a_file_with_another_attention():
    (theirs_body, file), body = source("se"), target(3, "cbam")
    report = transfer(body, NAMES, file, partial=True)
    assert torch.equal(body.backbone.last.conv.weight, theirs_body.backbone.last.conv.weight)
    assert "skipped 6, missing 0" in report[0]
    assert sum(line.startswith("weights: skipped attention.") for line in report) == 6
    assert sum("another block there" in line for line in report) == 3


def test_partial_leaves_attention_out_where_the_network_has_none():
    (theirs_body, file), body = source("eca"), target(3)
    with pytest.raises(UserError, match="made with attention=eca, you asked for none"):
        transfer(target(3), NAMES, file)
    report = transfer(body, NAMES, file, partial=True)
    assert torch.equal(body.head_p4.conv.conv.weight, theirs_body.head_p4.conv.conv.weight)
    assert sum("not in this network" in line for line in report) == 3


def without(file, *names, **more):
    state = {name: value for name, value in file.state_dict.items() if name not in names}
    return dataclasses.replace(file, state_dict=state | more)


def test_a_tensor_without_a_place_and_a_missing_one_are_errors_unless_partial():
    _, whole = source()
    file = without(whole, "neck_up.norm.bias", extra=torch.zeros(2))
    with pytest.raises(UserError, match=r"1 without a place \(extra .*1 missing \(neck_up.norm.bias\)"):
        transfer(target(3), NAMES, file)
    report = transfer(target(3), NAMES, file, partial=True)
    assert "weights: skipped extra: has no place in this network" in report
    assert "weights: not in the file, so new: neck_up.norm.bias" in report


def test_a_tensor_of_another_shape_is_named():
    _, whole = source()
    file = without(whole, **{"neck_up.norm.bias": torch.zeros(7)})
    with pytest.raises(UserError, match=r"neck_up.norm.bias has shape \(7,\), the network takes \(128,\)"):
        transfer(target(3), NAMES, file)


def test_a_head_of_another_shape_is_left_only_with_partial():
    theirs_body, whole = source()
    file = without(whole, **{"head_p4.predict.bias": torch.zeros(5)})
    with pytest.raises(UserError, match=r"head_p4.predict.bias has shape \(5,\), 3 classes need \(24,\)"):
        transfer(target(3), NAMES, file)
    body, fresh = target(3), target(3)
    report = transfer(body, NAMES, file, partial=True)
    assert torch.equal(body.head_p4.predict.bias, fresh.head_p4.predict.bias)
    assert torch.equal(body.head_p5.predict.bias, theirs_body.head_p5.predict.bias)
    assert "head_p4.predict.bias" not in report[0]
    assert any(line.startswith("weights: skipped head_p4.predict.bias") for line in report)


def test_a_file_of_which_nothing_fits_is_refused_even_partial():
    _, whole = source()
    with pytest.raises(UserError, match="nothing in it fits"):
        transfer(target(3), NAMES, dataclasses.replace(whole, state_dict={"a": torch.zeros(1)}), partial=True)


def test_a_partial_file_leaves_the_rest_new():
    theirs_body, whole = source()
    names = [name for name in whole.state_dict if name.startswith(("backbone", "neck_p5", "head_p5.conv"))]
    state = {name: whole.state_dict[name] for name in names}
    file = WeightsFile(Path("x.conv.29"), whole.config, None, state, is_partial=True)
    body, fresh = target(2, "se"), target(2, "se")
    report = transfer(body, ("a", "b"), file)
    assert torch.equal(body.neck_p5.norm.weight, theirs_body.neck_p5.norm.weight)
    assert torch.equal(body.head_p5.predict.weight, fresh.head_p5.predict.weight)
    assert f"loaded {len(names)} tensors, skipped 0, missing" in report[0]
    assert any("new: head_p5.predict, neck_up.conv" in line for line in report)


def test_classes_without_names_start_new():
    (_, file), body = source(), target(3)
    fresh = target(3).head_p4.predict.bias.unflatten(0, (3, -1))[:, 5:]
    report = transfer(body, NAMES, dataclasses.replace(file, class_names=None))
    assert torch.equal(body.head_p4.predict.bias.unflatten(0, (3, -1))[:, 5:], fresh)
    assert any("skipped: 3, since they have no names" in line for line in report)


def test_three_heads_start_with_everything_that_two_heads_have():
    (theirs_body, file), body = source(), build_network(ModelConfig(4, **THREE))
    fresh = {name: value.clone() for name, value in body.state_dict().items()}
    report = transfer(body, ("cell", "tv", "person", "worm"), file)
    last = {f"{head}.predict.{part}" for head in ("head_p5", "head_p4") for part in ("weight", "bias")}
    for name, value in body.state_dict().items():
        if name.startswith(("neck_up2.", "head_p3.")):
            assert torch.equal(value, fresh[name])
        elif name in last:
            ours, theirs = (one.unflatten(0, (3, -1)) for one in (value, file.state_dict[name]))
            assert torch.equal(ours[:, :5], theirs[:, :5])
            assert torch.equal(ours[:, [6, 7]], theirs[:, [6, 5]])  # tv and person
            assert torch.equal(ours[:, [5, 8]], fresh[name].unflatten(0, (3, -1))[:, [5, 8]])
        else:
            assert torch.equal(value, file.state_dict[name])
    coarse, fine = rows(theirs_body, IMAGE)
    assert torch.equal(rows(body, IMAGE)[0][:, :5], coarse[:, :5])
    assert torch.equal(rows(body, IMAGE)[1][:, :5], fine[:, :5])
    assert report == [
        "weights: source.pth was trained with other anchors, which are skipped; its box and objectness rows "
        "are copied",
        "weights: source.pth: loaded 114 tensors, and the box and objectness rows of head_p5.predict, "
        "head_p4.predict",
        "weights: third head (neck_up2, head_p3): new, not in the file",
        "weights: classes loaded by name: tv, person",
        "weights: classes that start new: cell, worm",
        "weights: classes of the file skipped: 1",
    ]


def test_two_heads_leave_out_the_third_of_the_file():
    (theirs_body, file), body = source(**THREE), target(3)
    report = transfer(body, NAMES, file)
    for theirs, ours in zip(rows(theirs_body, IMAGE)[:2], rows(body, IMAGE), strict=True):
        assert torch.equal(theirs, ours)
    assert "weights: third head (neck_up2, head_p3): skipped, not in this network" in report


@pytest.mark.slow
@pytest.mark.parametrize("places", [("c3",), ("up2",), ("c4", "c5", "up", "c3", "up2")])
def test_blocks_inserted_into_three_heads_leave_them_equal_bit_for_bit(places):
    theirs_body, file = source(**THREE)
    body = build_network(ModelConfig(3, phi="cbam", phi_at=places, **THREE))
    report = transfer(body, NAMES, file)
    for expected, found in zip(rows(theirs_body, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(expected, found)
    assert places_of(report) == sorted(places)


def test_a_block_of_a_place_that_two_heads_lack_is_refused_or_left_out():
    file = source("se", phi_at=("c3",), **THREE)[1]
    with pytest.raises(UserError, match="made with attention=se at c3, you asked for none"):
        transfer(target(3), NAMES, file)
    report = transfer(target(3), NAMES, file, partial=True)
    assert "weights: attention at c3: not in this network; not function-preserving" in report
