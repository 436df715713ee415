"""A small data set of drawn pictures in VOC format, for `train.py --demo` and for tests."""

from utils.data.demo.dataset import CLASS_NAMES, draw_sample, make_demo

__all__ = ["CLASS_NAMES", "draw_sample", "make_demo"]
