"""Start-up of app.py: seconds until its page is up, and from then until the first image has its boxes.

python benchmarks/app_startup.py [--runs 3]; needs requirements-app.txt, Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.data.demo import draw_sample

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Print a Markdown table with a row per run, after one that leaves bytecode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        image, _ = draw_sample(0, "test", 4)
        cv2.imwrite(f"{folder}/image.jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        print("| page up, s | first image, s |\n|---|---|")
        for run in range(runs + 1):
            page_up, first = measure(browser, folder)
            if run:
                print(f"| {page_up:.1f} | {first:.1f} |", flush=True)
        browser.close()
    return 0


def measure(browser: Browser, folder: str) -> tuple[float, float]:
    """Start app.py, open its page, drop an image; return the seconds of both steps."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--device", "cpu", "--port", port]
    start = time.perf_counter()
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    page = browser.new_page()
    page.set_default_timeout(600_000)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("page: ").strip()
        page.goto(address)
        drop = page.locator("#drop input[type=file]")
        drop.wait_for(state="attached")
        page_up = time.perf_counter() - start
        drop.set_input_files([f"{folder}/image.jpg"])
        page.wait_for_function("document.querySelector('#found-0')?.innerText.includes('1 car')")
        return page_up, time.perf_counter() - start - page_up
    finally:
        page.close()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
