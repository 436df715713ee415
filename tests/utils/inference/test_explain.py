from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.decode import decode
from nets.structures import Detections
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.inference.explain import (
    attention_gates,
    cut_to_image,
    find_attention,
    find_predictions,
    heat_map,
)
from utils.inference.predictor import Predictor
from utils.vision.letterbox import letterbox

NAMES = ("cat", "dog")
SIZE = (64, 96)  # height, width of the network's input
ANCHORS = ((8, 8), (16, 16), (24, 24), (32, 32), (48, 48), (64, 64))
PLACES = {2: ("c4", "c5", "up"), 3: ("c4", "c5", "up", "c3", "up2")}


def make_predictor(phi: str = "none", size: tuple[int, int] = SIZE, heads: int = 2, **knobs) -> Predictor:
    torch.manual_seed(0)
    anchors, masks = USUAL_ANCHORS[heads]
    anchors = ANCHORS if heads == 2 else anchors
    config = ModelConfig(2, phi, PLACES[heads], size, anchors, masks)
    return Predictor(YoloBody(config).eval(), config, NAMES, **({"conf": 1e-6, "max_det": 1} | knobs))


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def enlarge(cells: Tensor, size: tuple[int, int] = SIZE) -> Tensor:
    """Enlarge (h, w) bilinearly with torch, where the project uses OpenCV."""
    return F.interpolate(cells[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def features_of(body: YoloBody, images: Tensor) -> dict[str, Tensor]:
    """Compute what stands before each attention block, step by step."""
    c3, c4, c5 = body.backbone(images)
    up = body.upsample(body.neck_up(body.neck_p5(body.attention["c5"](c5))))
    features = {"c4": c4, "c5": c5, "up": up}
    if body.config.num_heads == 3:
        p4 = body.head_p4.conv(torch.cat((body.attention["up"](up), body.attention["c4"](c4)), dim=1))
        features |= {"c3": c3, "up2": body.upsample(body.neck_up2(p4))}
    return features


class Spot(nn.Module):
    """Closed everywhere but at one cell of a 6 x 8 grid."""

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        gate = torch.zeros(len(x), 1, *x.shape[2:])
        gate[..., 2, 5] = 1
        return {"spatial": gate}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x)["spatial"]


class Misfit(Spot):
    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return {"spatial": torch.ones(1, 1, 5, 7)}

    def forward(self, x: Tensor) -> Tensor:
        return x


class Bright(nn.Module):
    """Finds a dog wherever a cell of 16 pixels is bright, by the named parts of a YoloBody."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"c4": nn.Identity(), "c5": nn.Identity()})
        self.head_p4 = nn.ModuleDict({"conv": nn.Identity()})
        self.head_p5 = nn.ModuleDict({"conv": nn.Identity()})

    def forward(self, images: Tensor) -> list[Tensor]:
        c4, c5 = (
            self.attention[place](F.avg_pool2d(images, stride).mean(1, keepdim=True))
            for place, stride in zip(("c4", "c5"), (16, 32), strict=True)
        )
        p4, p5 = self.head_p4["conv"](c4 * 1), self.head_p5["conv"](c5 * 1)
        raw_p4, raw_p5 = ((x * 0).expand(-1, 21, -1, -1).clone() for x in (p4, p5))
        raw_p5[:, 4::7] = p5 - 30  # nothing
        raw_p4[:, 4::7] = 20 * p4 - 10
        raw_p4[:, 5::7] = -20  # no cat
        return [raw_p5, raw_p4]


def test_no_attention_is_refused_and_says_what_to_do() -> None:
    predictor = make_predictor()
    with pytest.raises(UserError, match=r"--attention-maps: these weights have no attention block; .*--phi"):
        attention_gates(predictor, predictor.prepare(make_image(*SIZE)))


@pytest.mark.parametrize(
    ("phi", "heads"), [("se", 2), ("cbam", 2), ("eca", 2), ("ca", 2), ("cbam", 3), ("ca", 3)]
)
def test_gates_are_those_of_the_blocks_on_the_features(phi: str, heads: int) -> None:
    predictor = make_predictor(phi, heads=heads)
    prepared = predictor.prepare(make_image(*SIZE))  # as large as the input: no border
    places = attention_gates(predictor, prepared)
    with torch.no_grad():
        features = features_of(predictor.model, predictor.to_input([prepared]))
    assert [gates.place for gates in places] == [*PLACES[heads]]
    for gates in places:
        x = features[gates.place]
        block = predictor.model.attention[gates.place]
        with torch.no_grad():
            expected = block.gates(x)
        assert gates.block == type(block).__name__
        assert gates.features == tuple(x.shape[1:])
        if "channel" in expected:
            assert gates.channels == pytest.approx(expected["channel"].flatten().numpy(), abs=1e-6)
        else:
            assert gates.channels is None
        cells = {"cbam": lambda e=expected: e["spatial"][0, 0]}
        cells["ca"] = lambda e=expected: (e["rows"] * e["columns"])[0].mean(0)
        if phi in cells:
            assert gates.positions == pytest.approx(enlarge(cells[phi]()).numpy(), abs=1e-5)
        else:
            assert gates.positions is None


@pytest.mark.parametrize(
    ("image_size", "shape", "rows", "columns"),
    [  # the input is 96 x 128 and the open cell, row 2 and column 5, covers rows 32..48, columns 80..96
        ((96, 128), (96, 128), (32, 48), (80, 96)),
        ((50, 200), (32, 128), (0, 16), (80, 96)),  # 32 gray rows above are cut away
        ((200, 200), (96, 96), (32, 48), (64, 80)),  # 16 gray columns on the left
    ],
)
def test_the_letterbox_is_undone(
    image_size: tuple[int, int], shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    predictor = make_predictor(size=(96, 128))
    predictor.model.attention["c4"] = Spot()
    (gates,) = attention_gates(predictor, predictor.prepare(make_image(*image_size)))
    assert gates.positions is not None
    assert gates.positions.shape == shape
    inside = np.zeros(shape, dtype=bool)
    inside[slice(*rows), slice(*columns)] = True
    assert gates.positions[sum(rows) // 2, sum(columns) // 2] > 0.9
    assert gates.positions[inside].min() > 0.2  # at its corners a cell is blended with three others
    around = np.zeros(shape, dtype=bool)
    around[max(0, rows[0] - 8) : rows[1] + 8, columns[0] - 8 : columns[1] + 8] = True
    assert not gates.positions[~around].any()


def test_gates_that_do_not_fit_are_named() -> None:
    predictor = make_predictor()
    predictor.model.attention["up"] = Misfit()
    with pytest.raises(UserError, match=r"up \(Misfit\): gate 'spatial' of shape \(1, 1, 5, 7\)"):
        attention_gates(predictor, predictor.prepare(make_image(*SIZE)))


def test_blocks_without_gates_are_told_apart() -> None:
    body = make_predictor().model
    body.attention["c4"], body.attention["up"] = nn.Dropout(), Spot()
    gated, others = find_attention(body)
    assert (list(gated), list(others)) == (["up"], ["c4"])


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("phi", ["none", "cbam"])
def test_heat_map_equals_a_slow_reference(phi: str, heads: int) -> None:
    predictor = make_predictor(phi, heads=heads)
    body = predictor.model
    prepared = predictor.prepare(make_image(*SIZE))
    (found,) = predictor.detect([prepared])
    assert len(found) == 1

    before = features_of(body, predictor.to_input([prepared]))
    c4, c5 = body.attention["c4"](before["c4"]), body.attention["c5"](before["c5"])
    p5 = body.head_p5.conv(body.neck_p5(c5))
    up = body.attention["up"](body.upsample(body.neck_up(body.neck_p5(c5))))
    p4 = body.head_p4.conv(torch.cat((up, c4), dim=1))
    layers = [c4, c5, p4, p5]
    raw_maps = [body.head_p5.predict(p5), body.head_p4.predict(p4)]
    if heads == 3:
        c3 = body.attention["c3"](before["c3"])
        up2 = body.attention["up2"](body.upsample(body.neck_up2(p4)))
        layers += [c3, body.head_p3.conv(torch.cat((up2, c3), dim=1))]
        raw_maps.append(body.head_p3.predict(layers[-1]))
    for layer in layers:
        layer.retain_grad()
    config = predictor.config
    _, scores = decode(raw_maps, anchors=config.anchors, anchor_masks=config.anchor_masks, scale_x_y=1.05)
    torch.logit(scores.max()).backward()  # max_det is 1, so the best score is the detection's
    expected = torch.zeros(SIZE)
    for layer in layers:
        cells = torch.zeros(layer.shape[2:])
        for channel in range(layer.shape[1]):
            cells += layer.grad[0, channel].clamp(min=0) * layer[0, channel].detach()
        cells = cells.clamp(min=0)
        expected += enlarge(cells / cells.max()) if cells.max() > 0 else 0
    heat = heat_map(predictor, prepared, found)
    assert heat.max() == pytest.approx(1)
    assert heat == pytest.approx((expected / expected.max()).numpy(), abs=1e-3)


@pytest.mark.parametrize("image_size", [(96, 96), (48, 96), (30, 20)])
def test_heat_is_in_the_object(image_size: tuple[int, int]) -> None:
    config = ModelConfig(2, input_size=(96, 96), anchors=ANCHORS)
    predictor = Predictor(Bright(), config, NAMES, max_det=1)
    image = np.zeros((*image_size, 3), dtype=np.uint8)
    height, width = image_size
    image[height // 2 : height * 3 // 4, width // 4 : width // 2] = 220
    prepared = predictor.prepare(image)
    (found,) = predictor.detect([prepared])
    assert found.labels.tolist() == [1]
    heat = heat_map(predictor, prepared, found)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    x, y = (x + 0.5) * width / heat.shape[1], (y + 0.5) * height / heat.shape[0]
    left, top, right, bottom = found.boxes[0].tolist()
    assert left < x < right
    assert top < y < bottom
    assert heat[: len(heat) // 4].max() < 0.1  # nothing above


def test_one_detection_is_explained_at_a_time() -> None:
    config = ModelConfig(2, input_size=(96, 96), anchors=ANCHORS)
    predictor = Predictor(Bright(), config, NAMES, nms_iou=0.0)
    image = np.zeros((96, 96, 3), dtype=np.uint8)
    image[16:32, 16:32], image[64:80, 64:80] = 220, 200
    prepared = predictor.prepare(image)
    (found,) = predictor.detect([prepared])
    assert len(found) == 2
    for index, (y, x) in enumerate([(24, 24), (72, 72)]):
        heat = heat_map(predictor, prepared, found[torch.tensor([index])])
        assert heat[y, x] > 0.9
        assert heat[96 - y, 96 - x] == 0


def test_nothing_stays_behind_and_frozen_weights_do() -> None:
    predictor = make_predictor("cbam")
    prepared = predictor.prepare(make_image(40, 90))
    (found,) = predictor.detect([prepared])
    heat = heat_map(predictor, prepared, found)
    attention_gates(predictor, prepared)
    assert all(parameter.grad is None for parameter in predictor.model.parameters())
    for module in predictor.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    (again,) = predictor.detect([prepared])
    assert torch.equal(found.boxes, again.boxes)
    assert torch.equal(found.scores, again.scores)
    predictor.model.requires_grad_(False)
    with torch.no_grad():
        assert heat_map(predictor, prepared, found) == pytest.approx(heat, abs=1e-5)


def test_hooks_go_when_the_network_fails() -> None:
    predictor = make_predictor("se")
    prepared = predictor.prepare(make_image(*SIZE))
    predictor.model.neck_p5 = nn.Linear(3, 3)
    for explain in (attention_gates, lambda *args: heat_map(*args, Detections.empty())):
        with pytest.raises(RuntimeError):
            explain(predictor, prepared)
    modules = predictor.model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_another_thread_on_the_same_network_changes_nothing() -> None:
    predictor = make_predictor("cbam")
    prepared = predictor.prepare(make_image(64, 96))
    (found,) = predictor([make_image(64, 96)])
    gates, heat = attention_gates(predictor, prepared), heat_map(predictor, prepared, found)
    caller = threading.get_ident()

    def run_another(*_: object) -> None:
        if threading.get_ident() == caller:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(predictor, np.zeros((64, 96, 3), np.uint8)).result()

    predictor.model.register_forward_hook(run_another)
    for same, one in zip(attention_gates(predictor, prepared), gates, strict=True):
        np.testing.assert_array_equal(same.channels, one.channels)
        np.testing.assert_array_equal(same.positions, one.positions)
    np.testing.assert_array_equal(heat_map(predictor, prepared, found), heat)


def test_slots_are_found_behind_the_letterbox() -> None:
    placement = letterbox(make_image(50, 200), (96, 128))[1]
    boxes = torch.tensor([[8.0, 40.0, 40.0, 60.0], [8.0, 40.0, 40.0, 60.0], [0.0, 0.0, 128.0, 96.0]])
    scores = torch.tensor([[0.2, 0.1], [0.8, 0.3], [0.2, 0.3]])
    found = Detections(
        torch.from_numpy(placement.undo(boxes[[2, 1, 0]].numpy())) + 1e-4,
        torch.tensor([0.3, 0.3, 0.2]),
        torch.tensor([1, 1, 0]),
    )
    assert find_predictions(boxes, scores, found, placement).tolist() == [2, 1, 0]


def test_a_map_of_one_cell_fills_the_image() -> None:
    placement = letterbox(make_image(1, 3000), (32, 32))[1]
    assert cut_to_image(np.full((1, 1), 0.5, dtype=np.float32), placement).tolist() == [[0.5] * 32]
