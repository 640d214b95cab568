"""The console in a real browser: at desktop and phone width, light and dark, and without a mouse."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from infra.broker.ports import HOST, free_ports
from infra.console.app import Console
from tests.infra.console.support import CANARY, TOKEN, FakeSources

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: Debian's package chromium has it"),
    pytest.mark.timeout(180),
]
PATHS = ("/", "/batches", "/quarantine", "/retention", "/ledger", "/enquiry")
WIDTHS = {"desktop": 1280, "phone": 360}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    (port,) = free_ports(1)
    config = uvicorn.Config(Console(FakeSources(), TOKEN).app(), host=HOST, port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://{HOST}:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Browser, address: str, width: int = 1280, scheme: str = "light") -> Page:
    page = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
    ).new_page()
    page.goto(f"{address}/?token={TOKEN}")
    return page


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_no_page_is_wider_than_the_screen_and_none_reports_an_error(browser: Browser, address: str, width: int) -> None:
    page = opened(browser, address, width)
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: problems.append(str(e)))
    for path in PATHS:
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        for control in page.locator("button:visible, input:visible:not([type=checkbox]), select:visible").all():
            box = control.bounding_box()
            assert box is not None
            assert box["height"] >= 32, f"{path}: too small for a finger"
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(browser: Browser, address: str, scheme: str) -> None:
    page = opened(browser, address, scheme=scheme)
    for path in PATHS:
        page.goto(address + path)
        worst = page.evaluate(_CONTRAST)
        assert worst["ratio"] >= 4.5, f"{path}: {worst}"  # WCAG 2.2, 1.4.3


def test_the_flow_is_fetched_again_while_the_box_is_ticked(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    with page.expect_response(lambda r: r.url.endswith("/flow"), timeout=10_000) as answer:
        pass
    assert answer.value.status == 200
    assert page.locator("#stages .stage").count() > 5
    page.locator("#live").uncheck()


def test_an_enquiry_by_keyboard_alone(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in PATHS:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/enquiry")
    typed = {"forename": "Aysha", "surname": CANARY, "date_of_birth": "02032001", "postcode": "SE13 7AB"}
    for field, text in typed.items():
        tab_to(page, field)
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=status]")
    assert "Held" in page.inner_text("main")
    assert CANARY not in page.content()


def test_a_requeue_from_preview_to_act(browser: Browser, address: str) -> None:
    page = opened(browser, address, WIDTHS["phone"])
    page.goto(address + "/quarantine")
    page.get_by_role("button", name="Preview putting back dfe person BadId").click()
    page.get_by_label("Your name").fill("A. Officer")
    page.get_by_label("Why").fill("mended")
    page.get_by_role("button", name="Put 1,200 back").click()
    assert "operation op1" in page.inner_text("[role=status]")


def tab_to(page: Page, field: str) -> None:
    for _ in range(30):  # a date is several stops
        if page.evaluate("document.activeElement.id") == field:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{field} is not reached by the Tab key")


# The least contrast of any text with what lies behind it.
_CONTRAST = """() => {
  const part = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 };
  const rgb = s => (s.match(/[\\d.]+/g) || []).map(Number);
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 99 };
  for (const e of document.querySelectorAll("main *, header *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (e.closest(".visually-hidden, .skip")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: e.textContent.trim().slice(0, 40), tag: e.tagName };
  }
  return worst;
}"""
