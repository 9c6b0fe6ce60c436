"""The documentation as a site: it builds strictly, every link leads somewhere, nothing is fetched from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flowzoo.api import INCOMPARABLE
from tests.site_pages import broken, browser, generator, pages

ROOT = Path(__file__).resolve().parents[1]

needs_generator = pytest.mark.skipif(generator() is None, reason="zensical is not installed")
pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy of the pages, so that two builds at once have nothing in common."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    (folder / "flowzoo").symlink_to(ROOT / "flowzoo")
    for name in ("mkdocs.yml", "docs_roles.py"):
        shutil.copy(ROOT / name, folder)
    command = generator()
    assert command is not None
    done = subprocess.run(
        [*command, "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


@needs_generator
def test_every_link_image_and_anchor_is_there(site: Path) -> None:
    assert len(pages(site)) > 40
    assert sorted(broken(site)) == []


@needs_generator
def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    foreign = [
        f"{path.name}: <{tag}> {reference}"
        for path, page in pages(site).items()
        for tag, reference in page.references
        if tag != "a" and re.match(r"(https?:)?//", reference)
    ]
    assert foreign == []
    fetched = [
        path.name
        for path in site.rglob("*.css")
        if re.search(r"url\([\"']?(https?:)?//", path.read_text("utf-8"))
    ]
    assert fetched == []


@needs_generator
def test_every_page_of_the_docs_is_a_page_of_the_site(site: Path) -> None:
    found = {path.parent.relative_to(site.resolve()).as_posix() for path in pages(site)}
    sources = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert {re.sub(r"(^|/)index$", "", name) or "." for name in sources} <= found


@needs_generator
def test_the_reference_is_made_of_docstrings(site: Path) -> None:
    flow = pages(site)[(site / "api" / "flow" / "index.html").resolve()]
    assert {
        "flowzoo.weights.load.load",
        "flowzoo.flow.Flow.bits_per_dim",
        "flowzoo.flow.Flow.log_prob",
    } <= flow.ids
    text = flow.path.read_text(encoding="utf-8")
    assert "Loads a trained flow." in text
    assert not re.search(r":(func|class|meth|mod):", text), "a Sphinx role that no reader wants to see"


@needs_generator
def test_search_finds_a_model(site: Path) -> None:
    assert "glow-mnist" in (site / "search.json").read_text(encoding="utf-8")


WIDE = """
const out = [...document.querySelectorAll('.md-content *')].filter((e) => !e.closest('pre, .md-typeset__scrollwrap')
  && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80));
const over = [...document.querySelectorAll('.leaderboard td:first-child')]
  .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent);
return [document.documentElement.scrollWidth <= innerWidth, out, over];
"""


@needs_generator
@pytest.mark.skipif(
    browser() is None or shutil.which("chromedriver") is None, reason="no Chromium or no driver"
)
def test_no_page_is_wider_than_a_telephone_or_runs_over(site: Path) -> None:
    """Code and tables scroll inside themselves, the page does not; a name stays in its column."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
    try:
        for page in (".", "leaderboard", "api/flow", "tutorial", "models/glow-mnist"):
            # Loaded as on a telephone, then made wider, since a load takes seconds.
            for width in (390, 1280):
                metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                if width == 390:
                    driver.get((site / page / "index.html").as_uri())
                assert driver.execute_script(WIDE) == [True, [], []], (width, page)
    finally:
        driver.quit()


def test_the_menu_names_pages_that_exist() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"[\w/-]+\.md", text)
    assert "leaderboard.md" in named
    assert [name for name in named if not (ROOT / "docs" / name).is_file()] == []


def test_no_font_and_no_worker_of_another_host_is_asked_for() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert "offline" not in text


# --- the leaderboard's script, in a browser --------------------------------------------------------------------------

PAGE = """<!doctype html><meta charset="utf-8"><h2>mnist</h2>
<div class="leaderboard"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
<script src="{script}"></script>"""
TABLE = [
    ("model", "row", "bits/dim", "parameters", "command"),
    ("b", "model", "≤ 1.0179 ± 0.0025", "563,508", "<code>flowzoo eval b</code>"),
    ("c", "model", "4.2436", "19,158,352", "<code>flowzoo eval c</code>"),
    ("a", "published", "0.98", "-", "-"),
    ("d", "baseline", "-3.5", "1,000", "-"),
]


def shown(tmp_path: Path, query: str) -> tuple[list[str], str]:
    """The first cells of the rows that the browser shows, top first, and the page as the browser has it."""
    head, *body = [[f"<{'th' if i == 0 else 'td'}>{cell}" for cell in row] for i, row in enumerate(TABLE)]
    rows = "".join(f"<tr>{''.join(row)}</tr>" for row in body)
    script = (ROOT / "docs" / "assets" / "leaderboard.js").as_uri()
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(head="".join(head), rows=rows, script=script), encoding="utf-8")
    program = browser()
    assert program is not None
    done = subprocess.run(
        [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom", f"{page.as_uri()}?{query}",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    body = done.stdout.partition("<tbody>")[2].partition("</tbody>")[0].split("<tr")[1:]  # type: ignore[assignment]
    visible = [str(row) for row in body if not re.match(r"[^>]*\bhidden", str(row))]
    return [re.findall(r"<td[^>]*>(\w)", row)[0] for row in visible], done.stdout


@pytest.mark.skipif(browser() is None, reason="no Chromium")
@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("sort=bits/dim", "dabc"),
        ("sort=parameters&order=descending", "cbda"),
        ("sort=model&order=descending&hide=baseline", "cba"),
        ("hide=model,published", "d"),
        ("find=EVAL%20b", "b"),
    ],
)
def test_the_leaderboard_is_sorted_and_filtered_in_the_browser(tmp_path: Path, query: str, rows: str) -> None:
    found, page = shown(tmp_path, query)
    assert "".join(found) == rows
    assert page.count('class="copy"') == 2, "a button for each command"


def test_the_published_figures_are_sound() -> None:
    found = json.loads((ROOT / "tools" / "leaderboard" / "published.json").read_text(encoding="utf-8"))
    for line in found["rows"]:
        assert set(line.get("reasons", ())) <= set(INCOMPARABLE), line
        assert line.get("comparable") in ("yes", "no", None)
        assert line.get("comparable") != "no" or line["reasons"], f"why not? {line}"
    for line in found["rows"]:
        assert line["source"]
        assert line["bpd"] > 0
        assert line["kind"] in ("exact", "bound", "unbiased", "biased")
    names = [(line["dataset"], line["name"]) for line in found["rows"]]
    assert len(names) == len(set(names))
