"""Settings of app.py."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from utils.cli.errors import UserError
from utils.cli.inputs import RUNS, check_data_folder, locate_weights
from utils.cli.parser import check_settings, setting
from utils.cli.shared_config import DATA_HELP, DEVICE_HELP, OWN_PHI_HELP, WEIGHTS_HELP, check_imgsz, phi_name

HOST = "127.0.0.1"  # no other machine can reach the page
MOST_WEIGHTS = 4  # side by side
LOWEST_SCORE = 0.05  # of a suggestion
_PACKAGES = ("gradio", "gradio_image_annotation")


@dataclass(frozen=True)
class AppConfig:
    """Settings of app.py; raises a UserError that names the flag of an invalid value."""

    data: str | None = setting(
        None, f"images to look at, with the ground truth of XML drawn: {DATA_HELP}", metavar="DIR"
    )
    label: str | None = setting(
        None, "folder of images to label, in any layout of --data; VOC XML is written into it", metavar="DIR"
    )
    weights: tuple[str, ...] = setting(
        ("voc",),
        f"one to {MOST_WEIGHTS} weights to look with; the first suggests boxes to label: {WEIGHTS_HELP}",
        metavar="FILE",
    )
    imgsz: tuple[int, int] | None = setting(
        None, "input side in pixels, or height and width (default: from the weights)"
    )
    phi: tuple[str, ...] = setting((), OWN_PHI_HELP, group="network", aliases=("--attention",), metavar="PHI")
    device: str = setting("auto", DEVICE_HELP)
    port: int = setting(7860, "port of the page on this computer", within="[1, 65535]")
    browser: bool = setting(True, "do not open the page in a browser")
    project: str = setting(str(RUNS), "folder of the runs whose weights the page offers", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)
        check_imgsz(self.imgsz)
        for phi in self.phi:
            phi_name(phi)
        if not 1 <= len(self.weights) <= MOST_WEIGHTS:
            raise UserError(f"--weights: takes 1 to {MOST_WEIGHTS}, got {len(self.weights)}")

    def check_inputs(self) -> None:
        """Check packages, folders, weights and port; raises a UserError that names the flag."""
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if missing:
            raise UserError(f"app.py: needs {' and '.join(missing)}; pip install -r requirements-app.txt")
        if self.data is not None:
            check_data_folder(self.data)
        if self.label is not None and not Path(self.label).is_dir():
            raise UserError(f"--label {self.label}: no such folder")
        for weights in self.weights:
            locate_weights(weights)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # right after a stop, as servers do
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise UserError(
                    f"--port {self.port}: {error.strerror}; stop what uses it, or choose another port"
                ) from None
