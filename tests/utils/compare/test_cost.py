import pytest

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.compare.cost import describe_latency, measure_costs

# Multiply-adds of the convolutions at 64 x 64 and 20 classes by hand: (out, in, kernel, output side).
_SIDES = [(32, 3, 3, 32), (64, 32, 3, 16)]
for _c, _side in ((64, 16), (128, 8), (256, 4)):
    _half = _c // 2
    _SIDES += [(_c, _c, 3, _side), (_half, _half, 3, _side), (_half, _half, 3, _side), (_c, _c, 1, _side)]
_SIDES += [(512, 512, 3, 2), (256, 512, 1, 2), (512, 256, 3, 2), (75, 512, 1, 2)]
_SIDES += [(128, 256, 1, 2), (256, 384, 3, 4), (75, 256, 1, 4)]


@pytest.mark.slow
def test_parameters_and_arithmetic_are_those_of_the_network():
    none, se = (ModelConfig(20, phi, input_size=(64, 64)) for phi in ("none", "se"))
    costs, same = measure_costs({"none": none, "se": se, "none again": none})
    plain, gated = costs["none"], costs["se"]
    assert costs["none again"] == plain
    assert (plain.parameters, gated.parameters) == (5918006, 5961014)
    assert plain.gflops == 2e-9 * sum(o * i * k * k * side * side for o, i, k, side in _SIDES)
    extra = sum(2 * channels * channels // 16 for channels in (256, 512, 128))
    assert gated.gflops - plain.gflops == pytest.approx(2e-9 * extra)
    assert plain.ratio == 1
    assert plain.milliseconds > 0
    assert 0.2 < same < 5


def test_a_block_that_cannot_be_built_is_named():
    with pytest.raises(UserError, match=r"--phi none\.py:X"):
        measure_costs({"X": ModelConfig(1, "none.py:X", input_size=(32, 32))})


@pytest.mark.parametrize(("ratio", "is_doubted"), [(0.94, True), (0.95, False), (1.05, False), (1.06, True)])
def test_times_of_a_busy_machine_are_doubted(ratio: float, is_doubted: bool) -> None:
    line = describe_latency(ratio)
    assert f"ratio {ratio:.3f}" in line
    assert ("too noisy to compare times" in line) == is_doubted
