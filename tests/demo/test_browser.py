"""The page in a real browser; where Debian's chromium and its driver are not installed, this is skipped."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowzoo.demo.server import DemoServer
from flowzoo.demo.work import Work

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytest.importorskip("selenium")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium and chromium-driver are not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A page that is loaded, with samples drawn by the smallest model."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1120,1500",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with (
        pytest.MonkeyPatch.context() as patch,
        DemoServer(Work(["nice-mnist", "realnvp-mnist", "tarflow-digits"]), 0) as server,
    ):
        patch.setenv("SE_OFFLINE", "true")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        driver = webdriver.Chrome(service=Service(DRIVER), options=options)
        try:
            driver.get(server.url)
            wait(
                driver,
                "state.way.length && state.moved.length && parseFloat(document.getElementById('bits').textContent) > 0",
            )
            yield driver
        finally:
            driver.quit()
            server.shutdown()


def wait(driver: Any, condition: str, seconds: float = 40) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, seconds, 0.1).until(
        lambda driver: driver.execute_script(f"return Boolean({condition})")
    )


def pixels(driver: Any, name: str) -> list[int]:
    """The bytes of a canvas."""
    found: list[int] = driver.execute_script(
        "const c = document.getElementById(arguments[0]);"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data];",
        name,
    )
    return found


def set_range(driver: Any, name: str, value: float) -> None:
    driver.execute_script(
        "const r = document.getElementById(arguments[0]); r.value = arguments[1]; r.dispatchEvent(new Event('input'));",
        name,
        value,
    )


def test_nothing_is_complained_about(browser: Any) -> None:
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.getElementById('status').textContent") == ""


def test_two_clicks_and_the_slider_leads_from_one_to_the_other(browser: Any) -> None:
    tiles = browser.find_elements("css selector", "#samples button")
    assert len(tiles) == 12
    tiles[4].click()
    tiles[7].click()
    wait(browser, "!document.getElementById('way').disabled")
    assert "is-a" in tiles[4].get_attribute("class")
    assert "is-b" in tiles[7].get_attribute("class")
    set_range(browser, "way", 0)
    assert pixels(browser, "between") == pixels(browser, "a")
    set_range(browser, "way", 1)
    assert pixels(browser, "between") == pixels(browser, "b")
    set_range(browser, "way", 0.5)
    assert pixels(browser, "between") not in (pixels(browser, "a"), pixels(browser, "b"))


def test_an_attribute_is_dragged(browser: Any) -> None:
    wait(browser, "!document.getElementById('strength').disabled")
    set_range(browser, "strength", 0)
    assert pixels(browser, "moved") == pixels(browser, "a")
    set_range(browser, "strength", 0.5)
    assert pixels(browser, "moved") != pixels(browser, "a")


def test_a_drawn_digit_has_bits_and_comes_back(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    before = browser.find_element("id", "bits").text
    pad = browser.find_element("id", "pad")
    ActionChains(browser, duration=20).move_to_element_with_offset(
        pad, -60, -80
    ).click_and_hold().move_by_offset(120, 0).move_by_offset(-70, 160).release().perform()
    wait(browser, f"document.getElementById('bits').textContent != '{before}'")
    again = pixels(browser, "again")
    assert max(again[0::4]) > 200
    assert "to the last pixel" in browser.find_element("id", "verdict").text


def test_another_model_and_an_error(browser: Any) -> None:
    left = browser.execute_script(
        "const menu = document.getElementById('model'); menu.value = 'realnvp-mnist';"
        "menu.dispatchEvent(new Event('change'));"
        "return [document.querySelectorAll('#samples button').length, document.getElementById('go').disabled];"
    )
    assert left == [0, True], "images of the model before, under the name of the new one"
    assert set(pixels(browser, "between")) == {0}
    wait(
        browser,
        "state.info.model == 'realnvp-mnist' && state.way.length && !document.getElementById('go').disabled",
    )
    browser.execute_script("call('sample', request({ count: 0, seed: 0, temperature: 1 })).catch(() => {});")
    wait(browser, "document.getElementById('status').classList.contains('error')")
    assert "1 to 24" in browser.find_element("id", "status").text


@pytest.mark.parametrize("width", [1120, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Any, width: int, scheme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ink, card = browser.execute_script(
        "const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)"
        ".map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)"
        ".reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);"
        "const hint = getComputedStyle(document.querySelector('.hint')).color;"
        "return [light(hint), light(getComputedStyle(document.querySelector('.card')).backgroundColor)];"
    )
    assert (max(ink, card) + 0.05) / (min(ink, card) + 0.05) >= 4.5  # WCAG AA
    assert (card < 0.1) == (scheme == "dark")
    low = browser.execute_script(
        "return [...document.querySelectorAll('.card button, .card select, .card input')]"
        ".filter((e) => e.offsetParent && e.offsetHeight < 42).map((e) => e.id)"
    )
    assert width > 500 or low == []  # fingers need room


def test_a_model_by_label_asks_which_and_says_no_bits(browser: Any) -> None:
    shown = "return ['label-field', 'below', 'draw-card'].map((id) => !document.getElementById(id).hidden)"
    assert browser.execute_script(shown) == [False, True, True]
    browser.execute_script(
        "const menu = document.getElementById('model'); menu.value = 'tarflow-digits';"
        "menu.dispatchEvent(new Event('change'));"
    )
    ready = "state.info.model == 'tarflow-digits' && !document.getElementById('go').disabled"
    wait(browser, f"{ready} && document.querySelectorAll('#samples button').length == 12")
    assert browser.execute_script(shown) == [True, False, False]
    sent = browser.execute_script(
        "document.getElementById('label').value = '4'; return request({ count: 1, seed: 0, temperature: 1 });"
    )
    assert str(sent["label"]) == "4"
