"""Export weights to other formats: python export.py --weights last --format onnx darknet."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
from utils.cli.console import log, one_line, run_command
from utils.cli.export_config import DEMO_IMAGES, ExportConfig
from utils.cli.files import new_run_folder, removed_if_empty
from utils.cli.inputs import check_class_file, check_data_folder
from utils.cli.parser import parse_config, save_args_yaml


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_parse, argv)


def _parse(argv: list[str]) -> int:
    config = parse_config(
        ExportConfig,
        argv,
        prog="export.py",
        description="Export weights to other formats; each export is run and compared with PyTorch.",
        example="python export.py --weights last --format onnx darknet --imgsz 320",
    )
    config.check_weight_files()
    if config.data != DEMO_IMAGES:
        check_data_folder(config.data)
    check_class_file(config.classes)
    return _export(config, ["python", "export.py", *argv])


def _export(config: ExportConfig, command: list[str]) -> int:
    from utils.export.bundle import device_command, write_bundle
    from utils.export.comparison import Comparison
    from utils.export.exporter import FORMATS, export_as, export_if_possible, staged
    from utils.export.job import add_pictures, build_job

    job = build_job(config)
    formats = [FORMATS[name] for name in config.formats]
    for form in () if config.skips_formats else formats:
        form.check(job)
    height, width = job.config.input_size
    shown = f"phi {job.config.phi}  input {height}x{width}  {job.config.num_classes} classes"
    log(f"weights {job.source}  {shown}")
    job = add_pictures(job, config)
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    files: list[Path] = []
    parity: list[str] = []
    with removed_if_empty(folder), staged(folder, job.source) as temporary:
        comparison = Comparison(job) if config.compare else None
        for form in formats:
            for note in (*form.notes(job), *job.unsupported_options(form.name)):
                log(note)
            if comparison and config.skips_formats:
                written, measured = export_if_possible(form.name, job, temporary, comparison.skipped)
            else:
                written, measured = export_as(form.name, job, temporary)
            files += written
            for runner, result in measured.items():
                parity.append(f"{form.name}: {result} ({runner})")
                print(parity[-1], flush=True)
            if comparison and written:
                comparison.add(form.name, written)
        files += write_bundle(job, temporary, files, parity, command, beside=folder)
        if comparison:
            files += comparison.write(temporary)
            print("\n".join(map(one_line, comparison.as_markdown().splitlines())))
        save_args_yaml(config, temporary / "args.yaml")
    for path in (folder / file.name for file in (*files, Path("args.yaml"))):
        print(one_line(f"{path}  {path.stat().st_size / 1000:.1f} kB"))
    skipped = comparison.skipped if comparison else {}
    for form in (form for form in formats if form.name not in skipped):
        print(one_line(f"next: {shlex.join(form.next_command(job, folder))}"))
    if on_device := device_command(folder, [file.name for file in files]):
        print(one_line(f"next: {on_device}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
