"""Darknet's .cfg and .weights, written from their description and not by our writers."""

import struct

import numpy as np

ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
ANCHORS_3L = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"


def conv(filters, size, stride=1, norm=True):
    lines = ["[convolutional]", f"filters={filters}", f"size={size}", f"stride={stride}", "pad=1"]
    return [*lines, f"activation={'leaky' if norm else 'linear'}", *(["batch_normalize=1"] if norm else [])]


def route(*layers, half=False):
    return ["[route]", f"layers={','.join(map(str, layers))}", *(["groups=2", "group_id=1"] if half else [])]


def csp(channels):
    half = channels // 2
    lines = conv(channels, 3) + route(-1, half=True) + conv(half, 3) + conv(half, 3) + route(-1, -2)
    return lines + conv(channels, 1) + route(-6, -1) + ["[maxpool]", "size=2", "stride=2"]


def yolo(mask, classes, anchors):
    number = (anchors.count(",") + 1) // 2
    lines = [f"mask={mask}", f"anchors={anchors}", f"classes={classes}", f"num={number}", "scale_x_y=1.05"]
    return ["[yolo]", *lines]


def write_cfg(path, size, classes, heads=2, masks=None):
    """Write yolov4-tiny or yolov4-tiny-3l as a Darknet cfg, from its description and not from our network."""
    out, anchors = 3 * (5 + classes), ANCHORS if heads == 2 else ANCHORS_3L
    masks = masks or (["3,4,5", "1,2,3"] if heads == 2 else ["6,7,8", "3,4,5", "0,1,2"])
    lines = ["[net]", f"width={size}", f"height={size}", "channels=3", *conv(32, 3, 2), *conv(64, 3, 2)]
    lines += csp(64) + csp(128) + csp(256) + conv(512, 3)
    lines += conv(256, 1) + conv(512, 3) + conv(out, 1, norm=False) + yolo(masks[0], classes, anchors)
    lines += [*route(-4), *conv(128, 1), "[upsample]", "stride=2", *route(-1, 23), *conv(256, 3)]
    lines += conv(out, 1, norm=False) + yolo(masks[1], classes, anchors)
    if heads == 3:
        lines += [*route(-3), *conv(64, 1), "[upsample]", "stride=2", *route(-1, 15), *conv(128, 3)]
        lines += conv(out, 1, norm=False) + yolo(masks[2], classes, anchors)
    path.write_text("\n".join(lines) + "\n")


def shapes_in_file_order(classes, heads=2):
    """List (in, out, kernel, has norm) of every convolution in the order of the cfg."""
    out, convs = 3 * (5 + classes), [(3, 32, 3, True), (32, 64, 3, True)]
    for c in (64, 128, 256):
        convs += [(c, c, 3, True), (c // 2, c // 2, 3, True), (c // 2, c // 2, 3, True), (c, c, 1, True)]
    convs += [(512, 512, 3, True), (512, 256, 1, True), (256, 512, 3, True), (512, out, 1, False)]
    convs += [(256, 128, 1, True), (384, 256, 3, True), (256, out, 1, False)]
    return convs + [(256, 64, 1, True), (192, 128, 3, True), (128, out, 1, False)] * (heads == 3)


def write_weights(path, classes, version=(0, 2, 5), seen=12345, heads=2):
    rng = np.random.default_rng(0)
    parts = []
    for channels, filters, kernel, norm in shapes_in_file_order(classes, heads):
        parts.append(rng.normal(0, 0.1, filters))
        if norm:
            parts += [rng.uniform(0.5, 1, filters), rng.normal(0, 0.1, filters)]
            parts.append(rng.uniform(0.5, 1.5, filters))
        fan_in = channels * kernel * kernel
        parts.append(rng.normal(0, fan_in**-0.5, filters * fan_in))
    values = np.concatenate(parts).astype("<f4").tobytes()
    wide = version[0] * 10 + version[1] >= 2
    path.write_bytes(struct.pack("<3i", *version) + struct.pack("<Q" if wide else "<I", seen) + values)
