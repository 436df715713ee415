"""Turn weights into other formats: python export.py --weights last --format onnx darknet."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

from utils.cli.class_names import read_class_names
from utils.cli.console import log, one_line, run_command
from utils.cli.export_config import ExportConfig
from utils.cli.files import new_run_folder, removed_if_empty
from utils.cli.parser import parse_config, save_args_yaml
from utils.export.bundle import device_command, write_bundle
from utils.export.formats import FORMATS, export_as, staged
from utils.export.job import ExportJob
from utils.export.sample_pictures import choose_pictures
from utils.weights.load import load_model


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_export, argv)


def _export(argv: list[str]) -> int:
    config = parse_config(
        ExportConfig,
        argv,
        prog="export.py",
        description="Turn weights into other formats; each export is run and compared with PyTorch.",
        example="python export.py --weights last --format onnx darknet --imgsz 320",
    )
    job = _load_job(config)
    for name in config.format:
        FORMATS[name].check(job)
    log(one_line(_describe(job)))
    pictures, quantization = choose_pictures(config, job.config, job.class_names)
    job = dataclasses.replace(job, pictures=pictures, quantization=quantization)
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    files: list[Path] = []
    parity: list[str] = []
    with removed_if_empty(folder), staged(folder, job.source) as aside:
        for name in config.format:
            for note in (*FORMATS[name].notes(job), *job.notes(name)):
                log(one_line(note))
            written, measured = export_as(name, job, aside)
            files += written
            for reader, nearness in measured.items():
                parity.append(f"{name}: {nearness} ({reader})")
                print(parity[-1], flush=True)
        files += write_bundle(job, aside, files, parity, ["python", "export.py", *argv], beside=folder)
        save_args_yaml(config, aside / "args.yaml")
    for path in (folder / file.name for file in (*files, Path("args.yaml"))):
        print(one_line(f"{path}  {path.stat().st_size / 1000:.1f} kB"))
    for name in config.format:
        if command := FORMATS[name].following(job, folder):
            print(one_line(f"next: {shlex.join(command)}"))
    if on_device := device_command(folder, [file.name for file in files]):
        print(one_line(f"next: {on_device}"))
    return 0


def _load_job(config: ExportConfig) -> ExportJob:
    classes = read_class_names(config.classes) if config.classes else None
    loaded = load_model(config.weights, classes=classes, phi=config.phi)
    network = dataclasses.replace(loaded.config, input_size=config.imgsz or loaded.config.input_size)
    return ExportJob(
        loaded.model,
        network,
        loaded.class_names,
        loaded.path,
        batch=config.batch_size,
        half=config.half,
        ends_in_nms=config.nms,
    )


def _describe(job: ExportJob) -> str:
    height, width = job.config.input_size
    shown = f"phi {job.config.phi}  input {height}x{width}  {job.config.num_classes} classes"
    return f"weights {job.source}  {shown}"


if __name__ == "__main__":
    sys.exit(main())
