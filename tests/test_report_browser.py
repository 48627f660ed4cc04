"""Reports in a browser: without network, by keyboard, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_copies import textures
from test_review_browser import CHROMIUM, QUIET
from test_set_audit import synthetic, write

from jdm.evaluation.audit_page import write_audit
from jdm.evaluation.folder_report import report_folder
from jdm.evaluation.set_audit import audit_set

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright, not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python, not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs {CHROMIUM}, which is not here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as runner:
        chromium = runner.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_of_an_audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    real = write(raw / "Dataset041_LongNameOfRealCasesThatDoesNotBreak", textures(16, 64, seed=0))
    made = synthetic(raw / "Dataset541_Syn", textures(5, 64, seed=5), real=real.name)
    write_audit(audit_set(made, real), made.folder)
    return report_folder(made.folder, real=real)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_reports_are_quiet_accessible_and_fit_the_window(browser, page_of_an_audit, width, scheme) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_of_an_audit.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [page_of_an_audit.as_uri()]
    page.close()


def test_contours_switch_and_tables_sort_by_keyboard(browser, page_of_an_audit) -> None:
    page = browser.new_page()
    page.goto(page_of_an_audit.as_uri())
    outline = page.locator(".outline").first
    assert outline.is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not outline.is_visible()
    table = page.locator("table", has_text="floor").first
    head = table.locator("th[scope=col]").first

    def shown() -> list[float]:
        texts = table.locator("tbody tr td:nth-of-type(1)").all_inner_texts()
        return [float(text) for text in texts if text]

    head.locator("button").focus()
    for state, falling in (("descending", True), ("ascending", False)):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == state
        assert shown() == sorted(shown(), reverse=falling)
    page.close()
