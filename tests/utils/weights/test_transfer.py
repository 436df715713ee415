from pathlib import Path

import pytest
import torch

from nets.yolo import ModelConfig, YoloBody
from utils.errors import UserError
from utils.weights.load import LoadedModel
from utils.weights.transfer import transfer

NAMES = ("person", "tvmonitor", "zebra")


def source(phi="none", **values):
    torch.manual_seed(1)
    model = YoloBody(ModelConfig(3, phi=phi, **values)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return LoadedModel(model, model.config, NAMES, Path("source.pth"))


def target(num_classes, phi="none"):
    torch.manual_seed(2)
    return YoloBody(ModelConfig(num_classes, phi=phi))


def rows(body, image):
    """Return both raw maps as (A, 5+K, h, w)."""
    with torch.no_grad():
        return [raw[0].unflatten(0, (3, -1)) for raw in body.eval()(image)]


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_same_classes_give_the_same_network():
    loaded, body = source(), target(3)
    transfer(body, NAMES, loaded)
    for theirs, ours in zip(rows(loaded.model, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(theirs, ours)


def test_class_rows_follow_the_name_and_box_rows_always_come():
    loaded, body = source(), target(4)
    fresh = target(4).head_p5.predict.weight.unflatten(0, (3, -1))
    report = transfer(body, ("cell", "tv", "person", "worm"), loaded)  # tv is an alias of tvmonitor
    for theirs, ours in zip(rows(loaded.model, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(ours[:, :5], theirs[:, :5])
        assert torch.equal(ours[:, 6], theirs[:, 6])
        assert torch.equal(ours[:, 7], theirs[:, 5])
    assert torch.equal(body.head_p5.predict.weight.unflatten(0, (3, -1))[:, [5, 8]], fresh[:, [5, 8]])
    assert any("by name: tv, person" in line for line in report)
    assert any("start new: cell, worm" in line for line in report)


@pytest.mark.parametrize("phi", ["se", "cbam", "eca", "ca"])
def test_inserted_attention_leaves_the_heads_equal_bit_for_bit(phi):
    loaded, body = source(), target(3, phi)
    report = transfer(body, NAMES, loaded)
    for theirs, ours in zip(rows(loaded.model, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(theirs, ours)
    assert sum("folded away" in line for line in report) == 3


def test_the_same_attention_is_copied():
    loaded, body = source("cbam"), target(3, "cbam")
    transfer(body, NAMES, loaded)
    for theirs, ours in zip(rows(loaded.model, IMAGE), rows(body, IMAGE), strict=True):
        assert torch.equal(theirs, ours)


def test_another_attention_is_refused():
    with pytest.raises(UserError, match="made with attention=se, you asked for cbam"):
        transfer(target(3, "cbam"), NAMES, source("se"))
