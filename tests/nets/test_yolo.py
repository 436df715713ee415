import pytest
import torch

from nets.config import ModelConfig
from nets.yolo import YoloBody


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


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"phi": "two"}, "unknown attention 'two'.*0.none"),
        ({"phi": 9}, "unknown attention 9"),
        ({"phi_at": ("c3",)}, "phi_at"),
        ({"input_size": (417, 416)}, "input_size"),
        ({"anchors": ((0, 3),) * 6}, "anchors"),
        ({"anchors": ((float("nan"), 3),) * 6}, "anchors"),
        ({"anchor_masks": ((3, 4, 6), (1, 2, 3))}, "anchor_masks"),
        ({"anchor_masks": ((3, 4), (1, 2, 3))}, "anchor_masks"),
        ({"scale_x_y": 0.5}, "scale_x_y"),
    ],
)
def test_nonsense_in_the_config_is_named(values, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig(**({"num_classes": 2} | values))


def test_config_keeps_the_name_of_a_number():
    assert ModelConfig(1, phi=2).phi == "cbam"
    assert ModelConfig(1, phi="4").phi == "ca"
