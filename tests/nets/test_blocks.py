import copy

import pytest
import torch
from torch import nn

from nets.blocks import ConvNormAct, fold_norms
from nets.config import ModelConfig
from nets.yolo import YoloBody


def test_a_model_without_norms_is_left_alone() -> None:
    model = nn.Conv2d(3, 4, 1)
    before = copy.deepcopy(model.state_dict())
    fold_norms(model)
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("phi", ["none", "cbam"])
def test_folding_changes_no_output_and_takes_the_norms_away(phi: str) -> None:
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, phi=phi, input_size=(64, 64)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    model.eval()
    folded = copy.deepcopy(model)
    fold_norms(folded)
    fold_norms(folded)  # a second time there is nothing to do
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(folded(images), model(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            assert theirs.std() > 0.01
    norms = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(name.startswith("attention") for name in norms)


def test_statistics_that_are_held_give_the_same_outputs_and_gradients_through_the_weights() -> None:
    torch.manual_seed(0)
    block = ConvNormAct(3, 5, 3, stride=2).double()
    for parameter in (block.norm.weight, block.norm.bias, block.norm.running_mean):
        nn.init.uniform_(parameter, -1, 1)
    nn.init.uniform_(block.norm.running_var, 0.5, 2)
    block.norm.eval()  # the block itself is in train mode
    images = torch.rand(2, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    inputs = [images, *block.parameters()]
    plain = block.act(block.norm(block.conv(images)))
    wanted = torch.autograd.grad(plain.square().sum(), inputs)
    before = block.norm.running_mean.clone()
    ours = block(images)
    torch.testing.assert_close(ours, plain)
    for gradient, theirs in zip(torch.autograd.grad(ours.square().sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(gradient, theirs)
        assert theirs.abs().sum() > 0
    assert torch.equal(before, block.norm.running_mean)
