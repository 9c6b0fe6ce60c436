"""Draws docs/images/what-demo.png anew: the page of ``flowzoo demo`` in chromium, with a digit drawn on it.

Run as ``python -m tools.demo_screenshot``, where chromium, its driver and selenium are installed.
"""

from __future__ import annotations

import io
import shutil
import threading
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from flowzoo.demo.server import DemoServer
from flowzoo.demo.work import Work, local_models

PLACE = Path(__file__).parents[1] / "docs" / "images" / "what-demo.png"
READY = (
    "return Boolean(state.way.length && state.moved.length"
    " && parseFloat(document.getElementById('bits').textContent))"
)
DRAW = """
const strength = document.getElementById('strength');
strength.value = 0.4;
strength.dispatchEvent(new Event('input'));
const pad = document.getElementById('pad'), box = pad.getBoundingClientRect();
const go = (type, x, y) => pad.dispatchEvent(new PointerEvent(type,
  { clientX: box.left + box.width * x, clientY: box.top + box.height * y, pointerId: 1 }));
pad.setPointerCapture = () => {};
go('pointerdown', 0.3, 0.25);
for (const [x, y] of [[0.5, 0.22], [0.68, 0.25], [0.6, 0.4], [0.5, 0.6], [0.42, 0.8]]) go('pointermove', x, y);
go('pointerup', 0.42, 0.8);
"""


def main() -> None:
    """Writes the picture."""
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    with DemoServer(Work(local_models())) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        try:
            size = {"width": 1120, "height": 1300, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(server.url)
            wait = WebDriverWait(driver, 60)
            wait.until(lambda driver: driver.execute_script(READY))
            before = driver.find_element("id", "bits").text
            driver.execute_script(DRAW)
            wait.until(lambda driver: driver.find_element("id", "bits").text != before)
            # As high as the page, so that no scrollbar is in the picture.
            height = driver.execute_script("return document.documentElement.scrollHeight")
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"height": height})
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        finally:
            driver.quit()
            server.shutdown()
    picture.quantize(96).save(PLACE, optimize=True)


if __name__ == "__main__":
    main()
