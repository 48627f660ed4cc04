"""Pictures of jdm-review's page, on a desktop and on a phone: the first pair of a synthetic dataset.

usage: scripts/review_pictures.py SYNTHETIC OUT   (nnU-Net's variables set; needs playwright and /usr/bin/chromium)
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WINDOWS = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 400, "height": 800}}


def main(synthetic: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    command = ["jdm-review", synthetic, "--reader", "pictures"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as runner:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        browser = runner.chromium.launch(executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox"])
        page = browser.new_page(viewport=WINDOWS["desktop"])
        page.goto(address)
        page.wait_for_selector("body[data-number]")
        for name, window in WINDOWS.items():
            page.set_viewport_size(window)
            page.wait_for_timeout(500)
            page.screenshot(path=out / f"{name}.png")
        browser.close()
        server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
