"""Reports in a real browser: nothing is loaded, keys do all that a mouse does, and all can read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_folders as made

from jdm.report.folder import report_folder

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, of the extra test")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (extra test)")
pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs Chromium at {CHROMIUM}, which is not there")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of every kind of folder."""
    root = tmp_path_factory.mktemp("reports")
    folders = {
        "demo": made.demo_folder(root / "demo"),
        "synthetic": made.synthetic_folder(root / "raw", (6, 16, 24), label=made.EVIL, case=made.EVIL_CASE),
        "classify": made.classify_folder(root / "classify"),
        "evaluation": made.evaluation_folder(root / "evaluation"),
        "run": made.run_folder(root / "fold_all"),
    }
    return {kind: report_folder(folder) for kind, folder in folders.items()}


class Opened:
    """A page in a tab of its own, and what the browser said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())

    def press_until(self, selector: str, most: int = 60) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(most):
            self.tab.keyboard.press("Tab")
            if self.tab.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")


@pytest.mark.parametrize("kind", ["demo", "synthetic", "classify", "evaluation", "run"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark"), (400, "light"), (1280, "dark")])
def test_every_report_is_quiet_fits_and_is_accessible(
    browser: Any, pages: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    page = Opened(browser, pages[kind], width, scheme)
    assert page.said == [] and [url for url in page.asked if not url.startswith("data:")] == [pages[kind].as_uri()]
    for folded in page.tab.query_selector_all("summary"):
        folded.click()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page.tab).response
    assert len(found["passes"]) > 15  # it did look
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []
    undecided = [one["id"] for one in found["incomplete"] if one["impact"] == "critical"]
    assert undecided == []
    assert page.tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.tab.close()


def test_contours_switch_by_the_space_bar(browser: Any, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["demo"])
    first, second = page.tab.query_selector_all("section:has(.switch)")[:2]

    def seen(section: Any) -> set[str]:
        states = "x => [...x.querySelectorAll('.contours')].map(c => getComputedStyle(c).visibility)"
        return set(section.evaluate(states))

    assert seen(first) == seen(second) == {"visible"}
    page.press_until(".switch")
    outline = page.tab.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2  # the focus is seen
    page.tab.keyboard.press("Space")
    assert seen(first) == {"hidden"} and seen(second) == {"visible"}
    page.tab.keyboard.press("Space")
    assert seen(first) == {"visible"}
    image, layer = (first.query_selector(s).bounding_box() for s in (".picture img", ".picture .contours"))
    assert image == pytest.approx(layer, abs=0.6)
    page.tab.close()


def test_tables_sort_by_click_and_by_enter(browser: Any, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["demo"])
    heads = page.tab.query_selector("table:has(caption:text('Mean over'))").query_selector_all("thead th")
    column = next(n for n, head in enumerate(heads) if head.inner_text().strip() == "Dice")

    def numbers() -> list[float]:
        cells = f"table => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[{column}].textContent))"
        return heads[column].evaluate(f"head => ({cells})(head.closest('table'))")

    before = numbers()
    assert before != sorted(before)
    heads[column].query_selector("button").click()
    assert numbers() == sorted(before) and heads[column].get_attribute("aria-sort") == "ascending"
    page.tab.keyboard.press("Enter")
    assert numbers() == sorted(before, reverse=True) and heads[column].get_attribute("aria-sort") == "descending"
    heads[0].query_selector("button").press("Enter")
    assert heads[column].get_attribute("aria-sort") is None and heads[0].get_attribute("aria-sort") == "ascending"
    names = heads[0].evaluate("h => [...h.closest('table').tBodies[0].rows].map(r => r.cells[0].textContent)")
    assert names == sorted(names)
    assert page.said == []
    page.tab.close()


def test_commands_are_copied_as_typed(browser: Any, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["demo"])
    page.press_until(".commands button", 200)
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_function("document.querySelector('.commands [role=status]').textContent !== ''")
    page.tab.evaluate("getSelection().selectAllChildren(document.querySelector('.commands code'))")
    assert page.tab.evaluate("getSelection().toString()") == "export A=$PWD/A\njdm-train 1 all\njdm-export 1 all"
    page.tab.close()


def test_without_scripts_and_on_paper_nothing_is_lost(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(pages["demo"].as_uri())
    tab.locator(".switch").first.uncheck()
    assert not tab.locator(".contours").first.is_visible()
    assert tab.locator("thead th").first.is_visible()
    context.close()
    page = Opened(browser, pages["synthetic"], scheme="dark")
    page.tab.emulate_media(media="print")
    page.tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.tab.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    assert not page.tab.locator(".switch").first.is_visible()
    paper = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"  # also where the screen is dark
    page.tab.close()
