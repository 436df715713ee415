"""The published layout, held against a plain functional rebuild of the published network."""

import pytest
import torch
from torch.nn import functional as F

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.weights.checkpoint import read_content
from utils.weights.load import load_model
from utils.weights.published import read_published, write_published

PHI = {0: "none", 1: "se", 2: "cbam", 3: "eca", 4: "ca"}
PARAMETERS = {0: 5918006, 1: 5961014, 2: 6004316, 3: 5918021, 4: 5982630}  # at 20 classes, as published
CONVS = {"backbone.conv1": (32, 3, 3), "backbone.conv2": (64, 32, 3), "backbone.conv3": (512, 512, 3)}
for _number, _c in ((1, 64), (2, 128), (3, 256)):
    _body = f"backbone.resblock_body{_number}"
    CONVS |= {f"{_body}.conv1": (_c, _c, 3), f"{_body}.conv4": (_c, _c, 1)}
    CONVS |= {f"{_body}.conv{place}": (_c // 2, _c // 2, 3) for place in (2, 3)}
CONVS |= {"conv_for_P5": (256, 512, 1), "upsample.upsample.0": (128, 256, 1)}
CONVS |= {"yolo_headP5.0": (512, 256, 3), "yolo_headP4.0": (256, 384, 3)}


def norm(name, channels):
    return {
        f"{name}.weight": torch.rand(channels) + 0.5,
        f"{name}.bias": torch.randn(channels) * 0.1,
        f"{name}.running_mean": torch.randn(channels) * 0.1,
        f"{name}.running_var": torch.rand(channels) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def conv(name, out, inputs, *kernel):
    fan_in = inputs * torch.Size(kernel).numel()
    return {f"{name}.weight": torch.randn(out, inputs, *kernel) * (2 / fan_in) ** 0.5}


def attention(phi, name, c):
    if phi == 1:
        return conv(f"{name}.fc.0", c // 16, c) | conv(f"{name}.fc.2", c, c // 16)
    if phi == 2:
        inner = f"{name}.channelattention"
        both = conv(f"{inner}.fc1", c // 8, c, 1, 1) | conv(f"{inner}.fc2", c, c // 8, 1, 1)
        return both | conv(f"{name}.spatialattention.conv1", 1, 2, 7, 7)
    if phi == 3:
        return conv(f"{name}.conv", 1, 1, 5)
    squeeze = conv(f"{name}.conv_1x1", c // 16, c, 1, 1) | norm(f"{name}.bn", c // 16)
    return squeeze | conv(f"{name}.F_h", c, c // 16, 1, 1) | conv(f"{name}.F_w", c, c // 16, 1, 1)


def published(phi, classes=20, seed=0):
    """Make a checkpoint with random weights under the published names and shapes."""
    torch.manual_seed(seed)
    state = {}
    for name, (out, inputs, kernel) in CONVS.items():
        state |= conv(f"{name}.conv", out, inputs, kernel, kernel) | norm(f"{name}.bn", out)
    for name, inputs in (("yolo_headP5.1", 512), ("yolo_headP4.1", 256)):
        state |= conv(name, 3 * (5 + classes), inputs, 1, 1)
        state[f"{name}.bias"] = torch.randn(3 * (5 + classes))
    for name, c in (("feat1_att", 256), ("feat2_att", 512), ("upsample_att", 128)) if phi else ():
        state |= attention(phi, name, c)
    return state


def rebuild(state, phi, images):
    """Compute the heads of the published network from its tensors, function by function."""

    def cba(name, x, stride=1):
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return F.leaky_relu(bn(f"{name}.bn", x), 0.1)

    def bn(name, x):
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-5)

    def csp(name, x):
        x = cba(f"{name}.conv1", x)
        first = cba(f"{name}.conv2", x[:, x.shape[1] // 2 :])
        second = cba(f"{name}.conv3", first)
        tap = cba(f"{name}.conv4", torch.cat([second, first], 1))
        return F.max_pool2d(torch.cat([x, tap], 1), 2, 2), tap

    def gate(name, x):
        if phi == 0:
            return x
        if phi == 1:
            hidden = F.relu(F.linear(x.mean((2, 3)), state[f"{name}.fc.0.weight"]))
            return x * torch.sigmoid(F.linear(hidden, state[f"{name}.fc.2.weight"]))[:, :, None, None]
        if phi == 2:
            fc1, fc2 = (state[f"{name}.channelattention.fc{i}.weight"] for i in (1, 2))
            pools = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
            x = x * torch.sigmoid(sum(F.conv2d(F.relu(F.conv2d(pool, fc1)), fc2) for pool in pools))
            maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
            return x * torch.sigmoid(
                F.conv2d(maps, state[f"{name}.spatialattention.conv1.weight"], padding=3)
            )
        if phi == 3:
            line = F.conv1d(x.mean((2, 3))[:, None], state[f"{name}.conv.weight"], padding=2)
            return x * torch.sigmoid(line)[:, 0, :, None, None]
        height = x.shape[2]
        strips = torch.cat([x.mean(3, keepdim=True).permute(0, 1, 3, 2), x.mean(2, keepdim=True)], 3)
        strips = F.relu(bn(f"{name}.bn", F.conv2d(strips, state[f"{name}.conv_1x1.weight"])))
        rows = F.conv2d(strips[..., :height].permute(0, 1, 3, 2), state[f"{name}.F_h.weight"])
        columns = F.conv2d(strips[..., height:], state[f"{name}.F_w.weight"])
        return x * torch.sigmoid(rows) * torch.sigmoid(columns)

    x = cba("backbone.conv2", cba("backbone.conv1", images, 2), 2)
    for number in (1, 2, 3):
        x, tap = csp(f"backbone.resblock_body{number}", x)
    c4, c5 = gate("feat1_att", tap), gate("feat2_att", cba("backbone.conv3", x))
    p5 = cba("conv_for_P5", c5)
    up = F.interpolate(cba("upsample.upsample.0", p5), scale_factor=2, mode="nearest")
    p4 = torch.cat([gate("upsample_att", up), c4], 1)
    heads = (("yolo_headP5", p5), ("yolo_headP4", p4))
    return [
        F.conv2d(cba(f"{name}.0", x), state[f"{name}.1.weight"], state[f"{name}.1.bias"]) for name, x in heads
    ]


IMAGES = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(3))


@pytest.mark.slow
@pytest.mark.parametrize("phi", PHI)
def test_a_published_checkpoint_gives_the_outputs_of_the_published_network(tmp_path, phi):
    state = published(phi)
    torch.save(state, tmp_path / "voc.pth")
    loaded = load_model(str(tmp_path / "voc.pth"))
    assert (loaded.config.phi, loaded.config.num_classes, loaded.config.scale_x_y) == (PHI[phi], 20, 1.0)
    assert loaded.class_names[14] == "person"  # VOC's names, by their count
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == PARAMETERS[phi]
    with torch.no_grad():
        for ours, theirs in zip(loaded.model(IMAGES), rebuild(state, phi, IMAGES), strict=True):
            assert theirs.abs().max() > 1
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("phi", PHI)
def test_writing_gives_back_every_tensor(tmp_path, phi):
    state = published(phi, classes=3)
    config, weights = read_published("x.pth", state)
    body = YoloBody(config)
    body.load_state_dict(weights)
    write_published(tmp_path / "out.pth", config, body.state_dict())
    written = read_content(tmp_path / "out.pth")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {
            name: value.half() if value.is_floating_point() else value for name, value in state.items()
        },
    ],
    ids=["DataParallel", "half"],
)
def test_prefixed_and_half_precision_files_load(tmp_path, change):
    state = published(2)
    torch.save(change(state), tmp_path / "voc.pth")
    loaded = load_model(str(tmp_path / "voc.pth"))
    assert loaded.config.phi == "cbam"
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float32}
    with torch.no_grad():
        for ours, theirs in zip(loaded.model(IMAGES), rebuild(state, 2, IMAGES), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01 * theirs.abs().max().item())


def test_another_class_count_takes_names_or_asks_for_them(tmp_path):
    torch.save(published(0, classes=3), tmp_path / "own.pth")
    with pytest.raises(UserError, match=r"own\.pth: has 3 classes without names; name them with --classes"):
        load_model(str(tmp_path / "own.pth"))
    with pytest.raises(UserError, match="has 3 classes, but 1 names were given"):
        load_model(str(tmp_path / "own.pth"), classes=("a",))
    assert load_model(str(tmp_path / "own.pth"), classes=("a", "b", "c")).class_names == ("a", "b", "c")
    torch.save(published(0, classes=80), tmp_path / "coco.pth")
    assert load_model(str(tmp_path / "coco.pth")).class_names[0] == "person"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("conv_for_P5.bn.bias"), r"1 missing \(neck_p5.norm.bias\)"),
        (lambda state: state.update({"extra.weight": torch.zeros(1)}), r"extra.weight has no place"),
        (lambda state: state.update({"yolo_headP5.1.weight": torch.zeros(76, 512, 1, 1)}), "one class count"),
        (lambda state: state.pop("yolo_headP4.1.weight"), r"missing \(head_p4.predict.weight\)"),
        (lambda state: state.update({"conv_for_P5.bn.bias": torch.zeros(3)}), r"has shape \(3,\)"),
        (lambda state: [state.pop(name) for name in list(state) if "head" in name], "no number of classes"),
        (
            lambda state: [state.pop(name) for name in list(state)] and state.update({"a.b": torch.zeros(1)}),
            "another",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    state = published(0)
    change(state)
    torch.save(state, tmp_path / "voc.pth")
    with pytest.raises(UserError, match=words) as caught:
        load_model(str(tmp_path / "voc.pth"))
    assert "voc.pth" in str(caught.value)


def test_attention_that_the_layout_lacks_is_refused(tmp_path):
    for config in (ModelConfig(1, "simam"), ModelConfig(1, "se", ("c5",))):
        with pytest.raises(ValueError, match="the published layout has"):
            write_published(tmp_path / "out.pth", config, YoloBody(config).state_dict())
    assert not (tmp_path / "out.pth").exists()
