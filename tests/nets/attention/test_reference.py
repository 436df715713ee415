"""Each block equals an independent version: loops and einsum over its state dict."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets.attention import ATTENTION, build_attention


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def pointwise(weight, x):  # (O, C, ...) and (B, C, ...) -> (B, O, ...): a linear layer or 1x1 convolution
    return torch.einsum("oc,bc...->bo...", weight.flatten(1), x)


def batch_norm(state, name, x):
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def pools(x):
    return x.mean((2, 3)), x.flatten(2).sort(dim=2).values[:, :, -1]


def none(state, x):
    return x


def se(state, x):
    hidden = pointwise(state["fc.0.weight"], pools(x)[0]).clamp(min=0)
    return x * sigmoid(pointwise(state["fc.2.weight"], hidden))[:, :, None, None]


def channel(state, x, prefix=""):
    first, second = state[f"{prefix}fc1.weight"], state[f"{prefix}fc2.weight"]
    logits = sum(pointwise(second, pointwise(first, pooled).clamp(min=0)) for pooled in pools(x))
    return x * sigmoid(logits)[:, :, None, None]


def spatial(state, x, prefix=""):
    weight = state[f"{prefix}conv.weight"]
    planes = F.pad(torch.stack((x.mean(1), x.max(1).values), dim=1), (3, 3, 3, 3))
    logits = sum(
        weight[0, plane, row, column] * planes[:, plane, row : row + x.shape[2], column : column + x.shape[3]]
        for plane in range(2)
        for row in range(7)
        for column in range(7)
    )
    return x * sigmoid(logits)[:, None]


def cbam(state, x):
    return spatial(state, channel(state, x, "channel."), "spatial.")


def eca(state, x):
    weight = state["conv.weight"][0, 0]
    means = F.pad(pools(x)[0], (len(weight) // 2, len(weight) // 2))
    logits = sum(weight[shift] * means[:, shift : shift + x.shape[1]] for shift in range(len(weight)))
    return x * sigmoid(logits)[:, :, None, None]


def ca(state, x):
    def gate(name, strip):  # (B, C, L): all is pointwise, so that rows and columns need no concatenation
        hidden = batch_norm(state, "norm", pointwise(state["squeeze.weight"], strip)).clamp(min=0)
        return sigmoid(pointwise(state[f"{name}.weight"], hidden))

    return x * gate("rows", x.mean(3))[:, :, :, None] * gate("columns", x.mean(2))[:, :, None, :]


def cam(state, x):
    def perceptron(pooled):
        hidden = (pointwise(state["mlp.0.weight"], pooled) + state["mlp.0.bias"]).clamp(min=0)
        return pointwise(state["mlp.2.weight"], hidden) + state["mlp.2.bias"]

    mean, peak = pools(x)
    return x * sigmoid(perceptron(mean) + perceptron(peak))[:, :, None, None]


def cse(state, x, prefix=""):
    hidden = pointwise(state[f"{prefix}fc1.weight"], pools(x)[0]).clamp(min=0)
    return x * sigmoid(pointwise(state[f"{prefix}fc2.weight"], hidden))[:, :, None, None]


def sse(state, x, prefix=""):
    return x * sigmoid((x * state[f"{prefix}conv.weight"]).sum(1, keepdim=True))


def scse_add(state, x):
    return cse(state, x, "cse.") + sse(state, x, "sse.")


def scse_max(state, x):
    return torch.stack((cse(state, x, "cse."), sse(state, x, "sse."))).max(0).values


def scse_multiply(state, x):
    one = torch.ones_like(x[:, :, :1, :1])
    hidden = pointwise(state["cse.fc1.weight"], pools(x)[0]).clamp(min=0)
    channel_gate = sigmoid(pointwise(state["cse.fc2.weight"], hidden))[:, :, None, None] * one
    return sse(state, x, "sse.") * channel_gate


def self_attention(state, x):
    result = torch.empty_like(x)
    for number, image in enumerate(x):
        pixels = image.flatten(1)  # (C, N)
        query, key, value = (state[f"{name}.weight"] @ pixels for name in ("query", "key", "value"))
        for position in range(pixels.shape[1]):
            scores = torch.exp((query[:, position, None] * key).sum(0) / math.sqrt(len(query)))
            seen = (value * scores / scores.sum()).sum(1)
            row, column = divmod(position, image.shape[2])
            result[number, :, row, column] = image[:, row, column] + state["project.weight"] @ seen
    return result


def split_attention(state, x):
    reduced = batch_norm(state, "reduce_norm", pointwise(state["reduce.weight"], x)).clamp(min=0)
    width = reduced.shape[1]
    halves, weights = reduced.split(width // 2, dim=1), state["split.conv.weight"].split(width)
    mixed = [F.conv2d(half, weight, padding=1) for half, weight in zip(halves, weights, strict=True)]
    first, second = batch_norm(state, "split.norm", torch.cat(mixed, dim=1)).clamp(min=0).split(width, dim=1)
    pooled = pools(first + second)[0]
    hidden = batch_norm(state, "split.squeeze_norm", pointwise(state["split.squeeze.weight"], pooled))
    logits = pointwise(state["split.excite.weight"], hidden.clamp(min=0)) + state["split.excite.bias"]
    # A softmax over two is the sigmoid of their difference.
    share = sigmoid(logits[:, :width] - logits[:, width:])[:, :, None, None]
    chosen = share * first + (1 - share) * second
    return x + batch_norm(state, "expand_norm", pointwise(state["expand.weight"], chosen))


def simam(state, x):
    """Equation 1's energy at its closed minimum: 4 (v + lambda) / (d + 2 v + 2 lambda)."""
    result = torch.empty_like(x)
    for image, channel in torch.cartesian_prod(torch.arange(len(x)), torch.arange(x.shape[1])).tolist():
        plane = x[image, channel]
        deviation = (plane - plane.mean()) ** 2
        variance = deviation.sum() / max(plane.numel() - 1, 1) + 1e-4
        energy = 4 * variance / (deviation + 2 * variance)
        result[image, channel] = plane * sigmoid(1 / energy)
    return result


BLOCKS = [none, se, cbam, eca, ca, channel, spatial, cam, cse, sse, scse_add, scse_max, scse_multiply]
BLOCKS += [self_attention, split_attention, simam]
REFERENCE = {block.__name__: block for block in BLOCKS}


def test_every_registered_block_has_an_independent_version():
    assert sorted(ATTENTION) == sorted(REFERENCE)


@pytest.mark.parametrize("size", [(1, 1), (13, 7)], ids=str)
@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_block_equals_an_independent_version(name, size):
    torch.manual_seed(0)
    block = build_attention(name, 32).double().eval()
    for parameter in block.parameters():  # random, so that what starts at zero or one matters too
        nn.init.normal_(parameter, std=0.3)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(2, 32, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = REFERENCE[name](block.state_dict(), x)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)
