import pytest
import torch

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import THIRD_HEAD, YoloBody


def three_heads(num_classes, **settings):
    anchors, masks = USUAL_ANCHORS[3]
    return ModelConfig(num_classes, anchors=anchors, anchor_masks=masks, **settings)


@pytest.mark.parametrize(
    ("num_classes", "phi", "expected"),
    [
        (20, 0, 5918006),
        (20, 1, 5961014),
        (20, 2, 6004316),
        (20, 3, 5918021),
        (20, 4, 5982630),
        (80, 0, 6056606),
    ],
)
def test_parameter_counts_are_those_of_the_published_networks(num_classes, phi, expected):
    body = YoloBody(ModelConfig(num_classes, phi=phi))
    assert sum(parameter.numel() for parameter in body.parameters()) == expected


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (416, 416)])
def test_maps_are_coarse_first_and_follow_the_input(size):
    body = YoloBody(ModelConfig(7)).eval()
    with torch.no_grad():
        coarse, fine = body(torch.rand(2, 3, *size))
    height, width = size
    assert coarse.shape == (2, 3 * 12, height // 32, width // 32)
    assert fine.shape == (2, 3 * 12, height // 16, width // 16)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (416, 416)])
def test_the_third_head_has_stride_8(size):
    body = YoloBody(three_heads(7)).eval()
    with torch.no_grad():
        raw_maps = body(torch.rand(2, 3, *size))
    assert [raw.shape for raw in raw_maps] == [
        (2, 3 * 12, size[0] // stride, size[1] // stride) for stride in (32, 16, 8)
    ]


def test_the_third_head_is_the_sections_of_darknets_cfg_after_layer_37():
    two, three = YoloBody(ModelConfig(80)), YoloBody(three_heads(80))
    added = {name: tuple(value.shape) for name, value in three.named_parameters()}
    for name, value in two.named_parameters():
        assert added.pop(name) == value.shape
    assert added == {
        "neck_up2.conv.weight": (64, 256, 1, 1),
        "neck_up2.norm.weight": (64,),
        "neck_up2.norm.bias": (64,),
        "head_p3.conv.conv.weight": (128, 64 + 128, 3, 3),
        "head_p3.conv.norm.weight": (128,),
        "head_p3.conv.norm.bias": (128,),
        "head_p3.predict.weight": (255, 128, 1, 1),
        "head_p3.predict.bias": (255,),
    }
    assert {name.split(".")[0] for name in added} == set(THIRD_HEAD)


def test_the_first_heads_of_three_compute_what_two_heads_compute():
    two, three = YoloBody(ModelConfig(2)).eval(), YoloBody(three_heads(2)).eval()
    three.load_state_dict(two.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(two(images), three(images)[:2], strict=True))


def test_objects_are_rare_at_first_in_every_head():
    body = YoloBody(three_heads(4)).eval()
    for head in (body.head_p5, body.head_p4, body.head_p3):
        bias = head.predict.bias.sigmoid().unflatten(0, (3, 9))
        assert bias[:, 4].tolist() == pytest.approx([0.01] * 3, rel=0.01)
        assert bias[:, 5:].tolist() == [pytest.approx([0.25] * 4)] * 3


@pytest.mark.parametrize("phi", ["se", "cbam", "eca", "ca"])
def test_one_seed_gives_every_attention_the_same_network_around_it(phi):
    bodies = []
    for name in ("none", phi):
        torch.manual_seed(3)
        bodies.append(YoloBody(ModelConfig(2, phi=name)).state_dict())
    plain, gated = bodies
    assert all(torch.equal(plain[name], gated[name]) for name in plain)


def test_phi_at_chooses_the_places():
    body = YoloBody(ModelConfig(2, phi="se", phi_at=("c5",)))
    assert {name.split(".")[1] for name, _ in body.named_parameters() if name.startswith("attention")} == {
        "c5"
    }


@pytest.mark.parametrize("places", [("c4", "c5", "up"), ("c3", "up2"), ("c4", "c5", "up", "c3", "up2")])
def test_phi_at_of_three_heads_has_two_places_more(places):
    body = YoloBody(three_heads(2, phi="se", phi_at=places)).eval()
    found = {name.split(".")[1] for name, _ in body.named_parameters() if name.startswith("attention")}
    assert found == {*places}
    seen = {}
    for place, block in body.attention.items():
        block.register_forward_pre_hook(
            lambda _, given, place=place: seen.update({place: given[0].shape[1:]})
        )
    body(torch.rand(1, 3, 64, 64))
    shapes = {"c4": (256, 4, 4), "c5": (512, 2, 2), "up": (128, 4, 4), "c3": (128, 8, 8), "up2": (64, 8, 8)}
    assert seen == shapes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"phi": "two"}, "unknown attention 'two'.*0.none"),
        ({"phi": 9}, "unknown attention 9"),
        ({"phi_at": ("c2",)}, "phi_at"),
        ({"phi_at": ("c4", "up2")}, "phi_at up2: only a network of three heads"),
        ({"input_size": (417, 416)}, "input_size"),
        ({"anchors": ((0, 3),) * 6}, "anchors"),
        ({"anchors": ((float("nan"), 3),) * 6}, "anchors"),
        ({"anchor_masks": ((3, 4, 6), (1, 2, 3))}, "anchor_masks"),
        ({"anchor_masks": ((3, 4), (1, 2, 3))}, "anchor_masks"),
        ({"anchor_masks": ((3, 4, 5),)}, "anchor_masks must be two or three lists"),
        ({"anchor_masks": ((4, 5), (2, 3), (0, 1), (0, 1))}, "anchor_masks must be two or three lists"),
        ({"scale_x_y": 0.5}, "scale_x_y"),
    ],
)
def test_nonsense_in_the_config_is_named(values, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig(**({"num_classes": 2} | values))


def test_config_keeps_the_name_of_a_number():
    assert ModelConfig(1, phi=2).phi == "cbam"
    assert ModelConfig(1, phi="4").phi == "ca"


def test_gains_fold_into_the_next_convolutions_bit_for_bit():
    torch.manual_seed(0)
    config = three_heads(2, phi="se", phi_at=("c4", "c5", "up", "c3", "up2"))
    body, plain = YoloBody(config).eval(), YoloBody(config).eval()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    image = torch.rand(1, 3, 64, 96)
    without = body(image)
    body.gains = {"c4": 0.5, "c5": 2.0, "up": 4.0, "c3": 8.0, "up2": 0.25}
    plain.load_state_dict(body.folded_state_dict())
    for expected, found, other in zip(body(image), plain(image), without, strict=True):
        assert torch.equal(expected, found)
        assert not torch.equal(expected, other)
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
