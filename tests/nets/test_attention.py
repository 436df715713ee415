import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets.attention import ATTENTION, attention_name, build_attention, register, same_attention

BLOCKS = sorted(set(ATTENTION) - {"none"})


def se(block, x):
    hidden = (x.mean((2, 3)) @ block.fc[0].weight.T).clamp(min=0)
    return x * (1 / (1 + torch.exp(-(hidden @ block.fc[2].weight.T))))[:, :, None, None]


def cbam(block, x):
    first, second = block.channel.fc1.weight[:, :, 0, 0], block.channel.fc2.weight[:, :, 0, 0]
    logits = sum((pooled @ first.T).clamp(min=0) @ second.T for pooled in (x.mean((2, 3)), x.amax((2, 3))))
    x = x * logits.sigmoid()[:, :, None, None]
    pooled = torch.stack((x.mean(1), x.amax(1)), dim=1)
    return x * F.conv2d(F.pad(pooled, (3, 3, 3, 3)), block.spatial.conv.weight).sigmoid()


def eca(block, x):
    weight = block.conv.weight[0, 0]
    means = F.pad(x.mean((2, 3)), (len(weight) // 2, len(weight) // 2))
    logits = sum(weight[shift] * means[:, shift : shift + x.shape[1]] for shift in range(len(weight)))
    return x * logits.sigmoid()[:, :, None, None]


def ca(block, x):
    def squeeze(
        strip,
    ):  # (B, C, L): the convolution is pointwise, so that rows and columns need no concatenation
        norm = block.norm
        y = torch.einsum("oc,bcl->bol", block.squeeze.weight[:, :, 0, 0], strip)
        y = (y - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
        return (y * norm.weight[:, None] + norm.bias[:, None]).clamp(min=0)

    rows = torch.einsum("oc,bcl->bol", block.rows.weight[:, :, 0, 0], squeeze(x.mean(3))).sigmoid()
    columns = torch.einsum("oc,bcl->bol", block.columns.weight[:, :, 0, 0], squeeze(x.mean(2))).sigmoid()
    return x * rows[:, :, :, None] * columns[:, :, None, :]


REFERENCE = {"se": se, "cbam": cbam, "eca": eca, "ca": ca}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [(1, 1), (13, 7)])
def test_block_equals_an_independent_version(name, size):
    torch.manual_seed(0)
    block = build_attention(name, 64).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(3, 64, *size, dtype=torch.float64)
    torch.testing.assert_close(block(x), REFERENCE[name](block, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_learns_and_a_batch_equals_single_images(name):
    torch.manual_seed(0)
    block = build_attention(name, 32)
    block(torch.randn(2, 32, 6, 5)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())
    block.eval()
    x = torch.randn(3, 32, 6, 5)
    torch.testing.assert_close(block(x), torch.cat([block(image[None]) for image in x]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BLOCKS)
def test_gates_are_what_the_forward_multiplies_with(name):
    torch.manual_seed(0)
    block = build_attention(name, 32).eval()
    x = torch.randn(2, 32, 6, 5)
    expected = x
    for gate in block.gates(x).values():
        expected = expected * gate
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_start_constant_makes_a_gain_that_still_learns(name):
    torch.manual_seed(0)
    block = build_attention(name, 32)
    constant = block.start_constant()
    x = torch.randn(2, 32, 6, 5)
    torch.testing.assert_close(block.eval()(x), constant * x)
    optimizer = torch.optim.SGD(block.train().parameters(), lr=1.0)
    before = [parameter.clone() for parameter in block.parameters()]
    for _ in range(5):
        optimizer.zero_grad()
        (block(x) * x).mean().backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, block.parameters(), strict=True))


@pytest.mark.parametrize("name", ["se", "cbam", "ca"])
def test_too_few_channels_are_refused_in_words(name):
    with pytest.raises(ValueError, match=r"ratio (8|16) leaves no channel of 4"):
        build_attention(name, 4)


def test_none_is_the_identity():
    assert isinstance(build_attention("none", 8), nn.Identity)


def test_a_block_of_the_users_own_from_a_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from nets.attention.se import SqueezeExcite\n\n\nclass SE8(SqueezeExcite):\n    ratio = 8\n"
    )
    block = build_attention(f"{file}:SE8", 64)
    assert block.fc[0].weight.shape == (8, 64)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "unknown attention"),
        ("-1", "unknown attention"),
        ("sse", "choose 0.none, 1.se"),
        ("missing.py:Block", "missing.py.*FileNotFoundError"),
        ("no.such.module:Block", "ModuleNotFoundError.*no"),
        ("nets.boxes:box_iou", "no nn.Module class 'box_iou'"),
    ],
)
def test_a_wrong_spec_is_named(spec, words):
    with pytest.raises(ValueError, match=words):
        build_attention(spec, 64)


def test_registering_enrols_a_block_by_name():
    @register("double")
    class Double(nn.Module):
        def __init__(self, channels):
            super().__init__()

        def forward(self, x):
            return 2 * x

    try:
        assert attention_name("double") == "double"
        assert build_attention("double", 3)(torch.ones(1, 3, 1, 1)).sum() == 6
        with pytest.raises(ValueError, match="taken"):
            register("double")(Double)
    finally:
        del ATTENTION["double"]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (2, "cbam", True),
        ("se", "cbam", False),
        ("own.py:SE8", "/else/where/own.py:SE8", True),
        ("own.py:SE8", "own.py:SE4", False),
        ("own.py:SE8", "other.py:SE8", False),
    ],
)
def test_a_block_of_ones_own_is_known_by_file_and_class(first, second, same):
    assert same_attention(first, second) is same


def test_a_broken_block_of_the_users_own_is_named(tmp_path):
    (tmp_path / "own.py").write_text("class Block(\n")
    with pytest.raises(ValueError, match=r"own\.py:Block.*SyntaxError"):
        build_attention(f"{tmp_path}/own.py:Block", 64)
