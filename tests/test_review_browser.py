"""jdm-review in a browser: by keyboard only, through kills, on a phone, in the dark."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from review_runs import made
from small_runs import write_pictures

from jdm.data.case_io import read_label
from jdm.data.raw_dataset import RawDataset
from jdm.review.decisions import read_entries, reviewed

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SMALL = {"width": 800, "height": 400}
"""A window that a machine without a graphics card paints quickly."""
playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright, not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs {CHROMIUM}, which is not here")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as runner:
        chromium = runner.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a page in a window of its own; none may ask for anything from elsewhere or write to the console.

    But for what a browser itself writes there when a test kills the server.
    """
    problems: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_page(address: str, **window: Any) -> Any:
            context = stack.enter_context(contextlib.closing(browser.new_context(**window)))
            page = context.new_page()
            page.on(
                "console", lambda said: "ERR_CONNECTION" in said.text or problems.append(f"{said.type}: {said.text}")
            )
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda asked: asked.url.startswith("http://127.0.0.1:") or problems.append(asked.url))
            page.goto(address)
            page.wait_for_selector("body[data-number]")
            return page

        yield open_page
    assert problems == []


@contextlib.contextmanager
def command(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running jdm-review and its address."""
    code = "import sys; sys.argv[0] = 'jdm-review'; from jdm.cli.review import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().split()[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def at(page: Any, number: int) -> None:
    """Wait until the page shows a pair; without the pauses between Playwright's own looks."""
    shown = page.evaluate(
        """(number) => new Promise((done) => {
          const look = () => document.body.dataset.number === number && done(number);
          new MutationObserver(look).observe(document.body, { attributes: true });
          setTimeout(() => done(`${document.body.dataset.number}: ${document.body.innerText}`), 20000);
          look();
        })""",
        str(number),
    )
    assert shown == str(number)


def says(page: Any, text: str) -> None:
    page.wait_for_selector(f'#status:has-text("{text}")')


def log_of(dataset: RawDataset, reader: str) -> Path:
    return dataset.folder / "review" / f"{reader}.jsonl"


def press_through(page: Any, dataset: RawDataset, first: int, last: int) -> None:
    """Accept, or reject every third pair; each decision is on disk once the next pair is shown."""
    log, total = log_of(dataset, "anna"), len(dataset.cases)
    for number in range(first, last):
        key, decision = ("r", "reject") if number % 3 == 0 else ("a", "accept")
        page.keyboard.press(key)
        if number + 1 < total:
            at(page, number + 1)
        else:
            says(page, "All are decided.")
        line = json.loads(log.read_bytes().splitlines()[-1])
        assert (line["case"], line["decision"]) == (dataset.cases[number], decision)


def test_five_hundred_pairs_by_keyboard_and_a_kill(nnunet_folders, opened):
    started, total, middle = time.monotonic(), 500, 230
    dataset = made(nnunet_folders["nnUNet_raw"], cases=total, shape=(8, 8))
    log = log_of(dataset, "anna")
    with command("521", "--reader", "anna") as (process, address):
        page = opened(address, viewport=SMALL)
        assert "token" not in page.url
        press_through(page, dataset, 0, middle)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with log.open("ab") as file:
        file.write(b'{"case": "case_499", "dec')  # torn by a kill
    with command("521", "--reader", "anna") as (process, address):
        page = opened(address, viewport=SMALL)
        at(page, middle)
        press_through(page, dataset, middle, total)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    entries = read_entries(log)
    assert len(entries) == total == len(reviewed(dataset.folder))
    summary = json.loads((dataset.folder / "review" / "review.json").read_text())
    assert summary["final"] == {"accept": 333, "reject": 167, "fix": 0, "undecided": 0}
    assert time.monotonic() - started < 60


def test_brush_comment_and_undo_by_keyboard(nnunet_folders, opened):
    dataset = made(nnunet_folders["nnUNet_raw"], cases=3, shape=(16, 24))
    old = (dataset.folder / "labelsTr" / "case_0.png").read_bytes()
    with command("521", "--reader", "anna") as (_, address):
        page = opened(address)
        other = str(1 - read_label(dataset.label_file("case_0")).array[0, 7, 13])  # stripes are upright
        for keys in ("f", other, "ArrowRight", "ArrowUp", "[", "[", "[", "[", "Space", "Enter"):
            page.keyboard.press(keys)  # 2 pixels wide, at x = 13, y = 7
        at(page, 1)
        label = reviewed(dataset.folder)["case_0"].label
        assert label is not None
        changed = np.argwhere(read_label(label).array[0] != read_label(dataset.label_file("case_0")).array[0])
        assert changed.tolist() == [[6, 13], [7, 12], [7, 13], [7, 14], [8, 13]]
        assert (dataset.folder / "labelsTr" / "case_0.png").read_bytes() == old
        page.keyboard.press("c")
        page.keyboard.type("a raf")  # none of which decides
        page.keyboard.press("Enter")
        says(page, "Comment saved.")
        page.keyboard.press("r")
        at(page, 2)
        page.keyboard.press("u")
        at(page, 1)
        page.keyboard.press("ArrowLeft")
        at(page, 0)
        says(page, "fixed")
    decisions = [(entry.case, entry.decision, entry.comment) for entry in read_entries(log_of(dataset, "anna"))]
    assert decisions == [
        ("case_0", "fix", None), ("case_1", "", "a raf"), ("case_1", "reject", None), ("case_1", "undo", None),
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_only_down_and_the_page_is_dark(nnunet_folders, opened, scheme):
    dataset = made(nnunet_folders["nnUNet_raw"], cases=2, shape=(300, 900), channels=3, classes=4)
    other = (read_label(dataset.label_file("case_0")).array[0, 120, 300] + 1) % 4
    with command("521", "--reader", "anna") as (_, address):
        page = opened(address, viewport={"width": 400, "height": 800}, color_scheme=scheme, has_touch=True)
        wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
        assert max(wide) == 400
        for area in ("body", "#stage", "aside"):
            colour = page.evaluate(f"getComputedStyle(document.querySelector('{area}')).backgroundColor")
            assert max(int(part) for part in colour[4:-1].split(",")) < 40, (area, colour)
        page.locator('[data-do="fix"]').tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        page.locator(f'[data-value="{other}"]').tap()
        page.locator("#canvas").tap(position={"x": 100, "y": 40})
        page.locator('[data-do="save"]').tap()
        at(page, 1)
        page.locator('[data-do="accept"]').tap()
        says(page, "All are decided.")


@pytest.mark.parametrize("shape", [(40, 30), (700, 900)])
def test_the_whole_image_is_seen_at_first_and_every_pixel_after_a_key(nnunet_folders, opened, shape):
    made(nnunet_folders["nnUNet_raw"], cases=1, shape=shape)
    with command("521", "--reader", "anna") as (_, address):
        page = opened(address, viewport={"width": 1000, "height": 600})
        page.wait_for_timeout(100)
        size = "(({ scrollWidth: w, clientWidth: W, scrollHeight: h, clientHeight: H }) => [w - W, h - H])"
        assert page.evaluate(f"{size}(document.querySelector('#stage'))") == [0, 0]
        enlarged = page.evaluate("document.querySelector('#canvas').getBoundingClientRect().width") / shape[1]
        assert enlarged == int(enlarged) > 1 if shape[0] == 40 else 0.5 < enlarged < 1
        page.keyboard.press("z")
        assert page.evaluate("document.querySelector('#canvas').getBoundingClientRect().width") == shape[1]


def test_every_control_is_reached_by_tab_and_shows_it(nnunet_folders, opened):
    made(nnunet_folders["nnUNet_raw"], cases=1, shape=(4, 16, 16), channels=2, dtype="int16")
    with command("521", "--reader", "anna") as (_, address):
        page = opened(address)
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.do || ''"))
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none" or page.evaluate("document.activeElement === document.body")
        assert reached >= {
            "accept",
            "reject",
            "fix",
            "undo",
            "comment",
            "slice",
            "opacity",
            "level",
            "window",
            "channel",
        }
        page.locator("#stage").focus()
        before = page.inner_text("#slice-is")
        page.keyboard.press("ArrowUp")
        page.wait_for_selector(f'#slice-is:not(:has-text("{before}"))')
        page.locator("#level").focus()
        page.keyboard.press("ArrowRight")  # moves the slider, not to the next pair
        assert page.get_attribute("body", "data-number") == "0"


def test_a_blind_reading_by_keyboard(nnunet_folders, opened):
    dataset = made(nnunet_folders["nnUNet_raw"], cases=4, shape=(16, 16))
    write_pictures(nnunet_folders["nnUNet_raw"], "Dataset021_Stripes", cases=4, shape=(20, 24))
    with command("521", "--reader", "anna", "--like", "21", "--blind") as (process, address):
        page = opened(address)
        assert page.locator("#decisions").is_hidden() and "case" not in page.inner_text("body")
        for number in range(8):
            page.keyboard.press("a")  # means nothing here
            page.keyboard.press("12"[number % 2])
            at(page, number + 1) if number < 7 else says(page, "All are decided.")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    found = json.loads((dataset.folder / "review" / "review.json").read_text())["blind"]["anna"]
    assert found["n"] == 8 and found["low"] < found["accuracy"] < found["high"]


def test_a_stopped_server_is_named_and_nothing_seems_decided(nnunet_folders, browser):
    made(nnunet_folders["nnUNet_raw"], cases=2)
    with command("521", "--reader", "anna") as (process, address):
        page = browser.new_page()
        page.goto(address)
        at(page, 0)
        process.kill()
        process.wait()
        page.keyboard.press("a")
        page.wait_for_selector('#alert:has-text("does not answer")')
        assert page.get_attribute("body", "data-number") == "0" and page.locator("#mark").is_hidden()
        page.close()
