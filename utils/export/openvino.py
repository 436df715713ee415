"""OpenVINO IR: the network of the ONNX export as .xml and .bin, with the metadata in the rt_info."""

from __future__ import annotations

from pathlib import Path

from utils.cli.errors import UserError
from utils.export import onnx
from utils.export.formats import Format
from utils.export.job import ExportJob
from utils.inference.runtimes import OPENVINO_DESCRIPTION, OpenVinoModel, as_texts, openvino_reason


class OpenVinoFormat(Format):
    """OpenVINO IR."""

    name = "openvino"
    suffix = ".xml"
    packages = ("onnx", "onnxscript", "openvino")
    runtime = OpenVinoModel

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the model; --half stores the weights in 16 bits, the device chooses its arithmetic."""
        import openvino

        graph = onnx.trace(self.name, job, half=False)
        path = folder / job.file_name(self.suffix)
        try:
            model = openvino.Core().read_model(graph.SerializeToString(), b"")
            model.set_rt_info(as_texts(job.metadata()), OPENVINO_DESCRIPTION)
            openvino.save_model(model, path, compress_to_fp16=job.half)
        except RuntimeError as error:
            reason = openvino_reason(error)
            if "iostream" in reason:
                raise UserError(f"{path}: cannot be written; is the disk full?", exit_code=1) from error
            begin = "--format openvino: OpenVINO cannot load this network"
            raise UserError(f"{begin}: {reason}; use --format onnx", exit_code=1) from error
        return [path, path.with_suffix(".bin")]
