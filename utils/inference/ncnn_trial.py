"""A trial run of an ncnn model: python ncnn_trial.py MODEL.param HEIGHT WIDTH.

A separate process, as a graph that pnnx misunderstood can crash ncnn or keep it busy forever.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ncnn
import numpy as np


def main(argv: list[str]) -> int:
    """Run the trial; returns 0 when every output could be computed."""
    path, height, width = Path(argv[0]), int(argv[1]), int(argv[2])
    net = ncnn.Net()
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        return 1
    extractor = net.create_extractor()
    image = np.zeros((3, height, width), np.float32)
    extractor.input(net.input_names()[0], ncnn.Mat(image))
    return int(any(extractor.extract(name)[0] for name in net.output_names()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
