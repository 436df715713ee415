"""What every registered block keeps."""

import copy

import pytest
import torch
from torch import nn

from nets.attention import ATTENTION, build_attention

BLOCKS = sorted(ATTENTION)
NUMBERED = ("none", "se", "cbam", "eca", "ca")
CONSTANTS = {
    "se": 0.5,
    "cbam": 0.25,
    "eca": 0.5,
    "ca": 0.25,
    "channel": 0.5,
    "spatial": 0.5,
    "cam": 0.5,
    "cse": 0.5,
    "sse": 0.5,
    "scse_add": 1.0,
    "scse_max": 0.5,
    "scse_multiply": 0.25,
    "self_attention": 1.0,
    "split_attention": 1.0,
}
WITHOUT_CONSTANT = {"none", "simam"}  # one has nothing to insert, the other no parameter to set
GATES = {
    **{name: {"channel"} for name in ("se", "eca", "channel", "cam", "cse")},
    **{name: {"spatial"} for name in ("spatial", "sse")},
    **{name: {"channel", "spatial"} for name in ("cbam", "scse_add", "scse_max", "scse_multiply")},
    "ca": {"rows", "columns"},
    "simam": {"element"},
}
JOINED_OTHERWISE = {"scse_add", "scse_max"}  # their gates are not multiplied with one another
REFUSE_ONE_IMAGE = {"split_attention"}


def make(name, channels=32):
    """Build a block of random parameters, so that a projection that starts at zero hides nothing."""
    torch.manual_seed(0)
    block = build_attention(name, channels)
    for parameter in block.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return block


@pytest.mark.parametrize("size", [(1, 1), (13, 7)], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_shape_is_kept_and_values_stay_finite(name, size):
    block, x = make(name), torch.randn(2, 32, *size)
    for training in (True, False):
        block.train(training)
        for scale in (0, 1, 1e4):
            y = block(scale * x)
            assert y.shape == x.shape
            assert y.isfinite().all()


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_gets_a_gradient(name):
    block = make(name)
    x = torch.randn(2, 32, 6, 5, requires_grad=True)
    (block(x) * torch.randn(2, 32, 6, 5)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_half_precision_is_close(name):
    block, x = make(name).eval(), torch.randn(2, 32, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y.float(), block(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_batch_equals_single_images(name):
    block, x = make(name).eval(), torch.randn(3, 32, 6, 5)
    torch.testing.assert_close(block(x), torch.cat([block(image[None]) for image in x]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BLOCKS)
def test_one_image_trains_or_is_refused_in_words(name):
    block, x = make(name).train(), torch.randn(1, 32, 6, 5)
    if name in REFUSE_ONE_IMAGE:
        with pytest.raises(ValueError, match=f"{type(block).__name__}: training needs a batch of at least 2"):
            block(x)
    else:
        assert block(x).isfinite().all()


@pytest.mark.parametrize("name", BLOCKS)
def test_gates_are_what_the_forward_applies(name):
    block, x = make(name).eval(), torch.randn(2, 32, 6, 5)
    gates = block.gates(x) if hasattr(block, "gates") else {}
    assert set(gates) == GATES.get(name, set())
    expected = x
    for gate in gates.values():
        assert torch.broadcast_shapes(gate.shape, x.shape) == x.shape
        assert gate.min() >= (0.62 if name == "simam" else 0)
        assert gate.max() <= 1
        expected = expected * gate
    if gates and name not in JOINED_OTHERWISE:
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_start_constant_makes_a_gain_that_still_learns(name):
    block = make(name)
    if name in WITHOUT_CONSTANT:
        assert not hasattr(block, "start_constant")
        return
    constant, x = block.start_constant(), torch.randn(2, 32, 6, 5)
    assert constant == CONSTANTS[name]
    assert torch.equal(block.eval()(x), constant * x)
    optimizer = torch.optim.SGD(block.train().parameters(), lr=1.0, weight_decay=0)
    before = [parameter.clone() for parameter in block.parameters()]
    for _ in range(5):
        optimizer.zero_grad()
        (block(x) * x.roll(1, 0)).mean().backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, block.parameters(), strict=True))


@pytest.mark.parametrize("name", BLOCKS)
def test_state_dict_and_copies_give_the_same_block(name):
    block, other, x = make(name), build_attention(name, 32), torch.randn(2, 32, 6, 5)
    block(x)  # moves the running statistics
    other.load_state_dict(block.state_dict(), strict=True)
    expected = block.eval()(x)
    assert torch.equal(other.eval()(x), expected)
    assert torch.equal(copy.deepcopy(block)(x), expected)


@pytest.mark.parametrize(
    ("name", "channels", "words"),
    [
        ("se", 4, "SqueezeExcite: ratio 16 leaves no channel of 4"),
        ("cbam", 4, "ChannelAttention: ratio 8 leaves no channel of 4"),
        ("ca", 4, "CoordinateAttention: ratio 16 leaves no channel of 4"),
        ("channel", 4, "ChannelAttention: ratio 8 leaves no channel of 4"),
        ("cse", 1, "ChannelSqueezeExcite: ratio 2 leaves no channel of 1"),
        ("scse_max", 1, "ChannelSqueezeExcite: ratio 2 leaves no channel of 1"),
        ("self_attention", 4, "SelfAttention: ratio 8 leaves no channel of 4"),
        ("split_attention", 4, "SplitAttention: ratio 8 leaves no channel of 4"),
    ],
)
def test_too_few_channels_are_refused_in_words(name, channels, words):
    with pytest.raises(ValueError, match=words):
        build_attention(name, channels)


@pytest.mark.parametrize("name", ["none", "eca", "spatial", "cam", "sse", "simam"])
def test_the_others_take_any_number_of_channels(name):
    x = torch.randn(2, 1, 3, 2)
    assert build_attention(name, 1)(x).shape == x.shape


def test_self_attention_starts_as_the_identity_wherever_it_is_built():
    x = torch.randn(2, 32, 6, 5)
    assert torch.equal(build_attention("self_attention", 32)(x), x)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("se", 2 * 256 * 16),
        ("cam", 2 * 256 * 16 + 256 + 16),
        ("cse", 256 * 256),
        ("sse", 256),
        ("scse_add", 256 * 256 + 256),
        ("self_attention", 4 * 256 * 32),
        ("simam", 0),
    ],
)
def test_parameters_are_as_many_as_the_formula_says(name, count):
    assert sum(parameter.numel() for parameter in build_attention(name, 256).parameters()) == count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [name if name in NUMBERED else pytest.param(name, marks=pytest.mark.exhaustive) for name in BLOCKS],
)
def test_onnx_computes_the_same(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    block, x = make(name, 16).eval(), torch.randn(1, 16, 13, 7)
    file = tmp_path / "block.onnx"
    torch.onnx.export(block, (x,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for scale in (0, 1, 10):
        (y,) = session.run(None, {session.get_inputs()[0].name: (scale * x).numpy()})
        torch.testing.assert_close(torch.from_numpy(y), block(scale * x), rtol=1e-5, atol=1e-5)
