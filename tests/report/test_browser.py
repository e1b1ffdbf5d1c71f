"""The report in headless Chromium, opened from its folder."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import config
from evaluation.explanations import NOT_COMPARED
from evaluation.reviews import add_reviews, read_judgements, read_reviews
from pipeline.side_outputs import AnomalyOutputs, Stage2Extras
from rasters.cog import write_raster
from rasters.maps import ScoreMap
from rasters.raster import MemoryRaster
from report.event_report import slug
from tests.evaluation.test_reviews import outline_of, review
from tests.report.test_report import DATES, page_data, write_explanation, write_report
from tests.scripts import CONTROL, FIRE
from utils import Event, read_event

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver") or next(
    (path for path in ("/usr/lib/chromium/chromedriver", "/usr/bin/chromedriver") if Path(path).exists()), None
)
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver; apt-get install chromium chromium-driver"
)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is in requirements-dev.txt")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1000",
]
HOSTILE = '4_<script>document.title="broken"<'
PARTIAL = "5_half"
BROKEN = "6_broken"
MANY = "2_many"
SCORES = (0.9, 0.5, 0.3, 0.2, 0.12)  # of the regions of MANY
LOAD_LIMIT = 15_000_000  # bytes of a page with its images and scripts


@pytest.fixture(scope="module")
def report(small_events: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a labelled event, a normal control, a name with HTML, a partial result and a broken event.

    Only the first one has an explanation. Another event has many regions and no label.
    """
    root = tmp_path_factory.mktemp("browser")
    shutil.copytree(small_events, root / "data")
    for stage in ("stage1", "stage2"):
        shutil.copytree(finished / stage, root / stage)
        shutil.copytree(finished / stage / FIRE, root / stage / HOSTILE)
    for name in (HOSTILE, PARTIAL):
        shutil.copytree(small_events / FIRE, root / "data" / name)
    shutil.copytree(finished / "stage1" / FIRE, root / "stage1" / PARTIAL)
    write_explanation(root / "stage2" / FIRE, DATES, [0.5, 0.7149, NOT_COMPARED, 0.3, 0.05])
    (root / "data" / BROKEN).mkdir()
    shutil.copytree(small_events / FIRE, root / "data" / MANY, ignore=shutil.ignore_patterns("*label*"))
    write_squares(read_event(root / "data" / MANY), finished / "stage2" / FIRE, root / "stage2" / MANY)
    assert write_report(root / "data", root, root / "report") == 0
    return root / "report"


def write_squares(event: Event, like: Path, folder: Path) -> None:
    """Write an anomaly map with a square region of each of SCORES, and its polygons. `like`: outputs on its grid."""
    old = ScoreMap(like / config.ANOMALY_MAP_NAME)
    scores = np.zeros(old.shape, np.float32)
    for number, score in enumerate(SCORES):
        scores[40 * number + 10 : 40 * number + 34, 30 : 54 + 8 * number] = score
    folder.mkdir(parents=True)
    write_raster(folder / config.ANOMALY_MAP_NAME, MemoryRaster(scores), old.georeference, {}, ["score"])
    AnomalyOutputs(folder, event, old.georeference, Stage2Extras()).write(MemoryRaster(scores), None)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Any, report: Path) -> Iterator[Any]:
    """The browser; checks that its console is empty and that all requests stay in the report's folder."""
    chromium.get("about:blank")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    yield chromium
    assert chromium.get_log("browser") == []
    asked = requests(chromium)
    assert asked
    inside = report.absolute().as_uri() + "/"
    assert [address for address in asked if not address.startswith((inside, "data:", "blob:"))] == []
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def requests(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent" and message["params"].get("documentURL") != "about:blank"
    ]


def wait_for(browser: Any, condition: str) -> Any:
    """Wait until a JavaScript expression is true, and return its value."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := browser.execute_script(f"return {condition}"):
            return found
        time.sleep(0.05)
    raise AssertionError(condition)


def open_event_page(browser: Any, report: Path, name: str = FIRE, selected: bool = False) -> dict[str, Any]:
    """Open an event's page and return its data. `selected`: leave the region selected that the page opens on."""
    page = report / "events" / f"{slug(name)}.html"
    browser.get(page.as_uri())
    wait_for(browser, "document.body.dataset.ready && Array.from(document.images).every(one => one.complete)")
    if not selected:
        find(browser, "body").send_keys(webdriver.Keys.ESCAPE, "0")
        move_slider(browser, "#swipe", 50)
        browser.execute_script(
            "for (const [side, index] of [['left', 3], ['right', 4]])"
            " document.querySelector(`#strip li[data-photo='${index}'] [data-side=${side}]`).click()"
        )
    return page_data(page)


def open_overview(browser: Any, report: Path) -> None:
    browser.get((report / "index.html").as_uri())
    wait_for(browser, "document.readyState === 'complete'")


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def text_of(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def move_slider(browser: Any, selector: str, value: float | str) -> None:
    browser.execute_script(
        "const one = document.querySelector(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        selector,
        value,
    )


def count_painted(browser: Any, layer: str) -> int:
    """How many pixels of an overlay are not transparent."""
    return browser.execute_script(
        "const one = document.getElementById('layer-' + arguments[0]);"
        "const copy = new OffscreenCanvas(one.width, one.height).getContext('2d', {willReadFrequently: true});"
        "copy.drawImage(one, 0, 0);"
        "const pixels = copy.getImageData(0, 0, one.width, one.height).data;"
        "return pixels.filter((value, i) => i % 4 === 3 && value > 0).length",
        layer,
    )


def event_names(browser: Any) -> list[str]:
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#events tbody tr')).filter(row => !row.hidden)"
        ".map(row => row.cells[1].dataset.sort)"
    )


def test_the_overview_can_be_sorted_and_filtered(browser: Any, report: Path) -> None:
    open_overview(browser, report)
    names = event_names(browser)
    assert names == sorted([FIRE, CONTROL, HOSTILE, PARTIAL, BROKEN, MANY])
    heading = browser.find_elements("css selector", "#events th[scope=col]")[-1]
    button = heading.find_element("css selector", "button")
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    scored = event_names(browser)
    assert set(scored[:2]) == {FIRE, HOSTILE}  # events without a score come last
    button.send_keys("\ue007")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert set(event_names(browser)[:2]) == {FIRE, HOSTILE}
    find(browser, ".chip[data-filter='4']").click()
    assert set(event_names(browser)) == {FIRE, HOSTILE}
    assert text_of(browser, "#shown") == "2 of 6 shown"
    assert browser.execute_script("return document.querySelectorAll('.map .dim').length") == 3
    find(browser, ".chip[data-filter='4']").click()
    assert len(event_names(browser)) == 6
    find(browser, f"a[href='events/{slug(FIRE)}.html']").click()
    wait_for(browser, "document.body.dataset.ready")
    assert text_of(browser, "h1").startswith(FIRE)


def test_the_swipe_moves_by_slider_pointer_and_keys(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    clip = "return getComputedStyle(document.getElementById('right-photo')).clipPath"
    assert browser.execute_script(clip) == "inset(0px 0px 0px 50%)"
    move_slider(browser, "#swipe", 25)
    assert browser.execute_script(clip) == "inset(0px 0px 0px 25%)"
    find(browser, "#swipe").send_keys("\ue014")  # the right arrow
    assert browser.execute_script(clip) == "inset(0px 0px 0px 25.5%)"
    assert slug(FIRE) in browser.current_url  # the arrow key moved the slider, not the page
    width = browser.execute_script("return document.getElementById('stage').clientWidth")
    handle = find(browser, "#handle i")
    webdriver.ActionChains(browser).drag_and_drop_by_offset(handle, round(width / 4), 0).perform()
    assert float(find(browser, "#swipe").get_attribute("value")) == pytest.approx(50.5, abs=1)


def test_any_two_dates_can_be_compared(browser: Any, report: Path) -> None:
    data = open_event_page(browser, report)
    for side, index in (("left", 0), ("right", 2)):
        find(browser, f"#strip li[data-photo='{index}'] [data-side={side}]").click()
        assert find(browser, f"#{side}-photo").get_attribute("src").endswith(data["photos"][index]["file"])
        assert find(browser, f"#{side}").get_attribute("value") == str(index)
        assert text_of(browser, f"#{side}-tag") == data["photos"][index]["title"]
    wait_for(browser, "Array.from(document.images).every(one => one.complete && one.naturalWidth)")


def test_the_threshold_updates_scores_and_overlays(browser: Any, report: Path) -> None:
    data = open_event_page(browser, report)
    curve, layers = data["curve"], {}
    find(browser, "[data-layer=binary]").click()
    for step in (curve["default"], 0, 60, len(curve["thresholds"]) - 1):
        move_slider(browser, "#threshold", step)
        wait_for(browser, f"document.getElementById('threshold-value').textContent === '{step / 100:.2f}'")
        shown = [text_of(browser, f"#{name}") for name in ("recall", "precision", "f1")]
        assert shown == [f"{score:.3f}" for score in curve["scores"][step]]
        layers[step] = count_painted(browser, "binary")
        grid = data["grid"][0] * data["grid"][1]
        assert layers[step] / grid == pytest.approx(curve["flagged"][step] / curve["valid"], abs=1e-9)
    assert len(set(layers.values())) > 2
    find(browser, "#threshold-reset").click()
    assert text_of(browser, "#threshold-value") == "0.08"
    assert count_painted(browser, "binary") == layers[curve["default"]]
    assert count_painted(browser, "outcome") >= layers[curve["default"]]


def test_overlays_have_an_opacity_and_a_legend(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    for layer in ("change", "filtered", "anomaly", "label"):
        assert not find(browser, f"#legend-{layer}").is_displayed()
        find(browser, f"[data-layer={layer}]").click()
        assert find(browser, f"#legend-{layer}").is_displayed()
        assert count_painted(browser, layer) > 0
        move_slider(browser, f"[data-opacity={layer}]", 30)
        assert find(browser, f"#layer-{layer}").value_of_css_property("opacity") == "0.3"
        find(browser, f"[data-layer={layer}]").click()
        assert not find(browser, f"#layer-{layer}").is_displayed()


def test_the_readout_shows_coordinates_and_scores(browser: Any, report: Path) -> None:
    data = open_event_page(browser, report)
    stage = find(browser, "#stage")
    webdriver.ActionChains(browser).move_to_element_with_offset(stage, 40, 40).perform()
    readout = text_of(browser, "#readout")
    assert "° N" in readout
    assert "anomaly" in readout
    assert "change" in readout
    find(browser, "#frame").send_keys(webdriver.Keys.SHIFT + webdriver.Keys.ARROW_RIGHT)
    assert text_of(browser, "#readout") != readout
    x, y = (round(data["regions"][axis][0]) for axis in "xy")
    pixel = f"{{width: 1, height: 1, rows: [{y}], columns: [{x}], maps: {{}}}}"
    browser.execute_script(f"window.parts = probe(DATA, {pixel}, 0.5, 0.5).parts")
    assert browser.execute_script("return window.parts[0]") == f"x {x}, y {y}"
    east, north = 500_000 + (x + 0.5) / 2, 4_649_776 - (y + 0.5) / 2
    shown = browser.execute_script("return window.parts[2]").strip("()").split(", ")
    assert [float(number) for number in shown] == pytest.approx([east, north], abs=0.051)


def listed(browser: Any) -> list[int]:
    """Return the regions in the table, in order."""
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#regions tbody tr')).map(row => Number(row.dataset.region))"
    )


def test_a_click_on_a_table_row_marks_the_region(browser: Any, report: Path) -> None:
    data = open_event_page(browser, report)
    row = find(browser, "#regions tbody tr")
    row.click()
    assert "selected" in row.get_attribute("class")
    assert row.find_element("css selector", "button").get_attribute("aria-pressed") == "true"
    assert count_painted(browser, "marked") > 0
    assert find(browser, "#pins .selected").text == row.get_attribute("data-region")
    find(browser, "body").send_keys(webdriver.Keys.ESCAPE)
    assert not find(browser, "#layer-marked").is_displayed()
    row.find_element("css selector", "button").send_keys("\ue007")
    assert find(browser, "#layer-marked").is_displayed()
    find(browser, "#regions th[data-column=area] button").click()
    pixels = data["regions"]["pixels"]
    assert [pixels[number - 1] for number in listed(browser)] == sorted(pixels, reverse=True)


def explanation(browser: Any) -> dict[str, Any]:
    """What the panel of a selected region shows."""
    return browser.execute_script(
        "const all = (selector) => Array.from(document.querySelectorAll(`#similarities ${selector}`));"
        "return {title: document.getElementById('region-title').textContent,"
        "words: document.getElementById('explanation-words').textContent,"
        "marks: all('circle').map(one => one.getAttribute('class')),"
        "dates: all('text.date').map(one => one.textContent),"
        "limit: all('text.limit').map(one => one.textContent),"
        "label: document.getElementById('similarities').getAttribute('aria-label')}"
    )


def pixels_down(browser: Any, selector: str) -> float:
    """Return the distance of an element's middle from the upper edge of the window."""
    return browser.execute_script(
        "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return (box.top + box.bottom) / 2",
        selector,
    )


@pytest.mark.parametrize("key", [None, webdriver.Keys.ENTER, webdriver.Keys.SPACE])
def test_a_selected_region_is_explained(browser: Any, report: Path, key: str | None) -> None:
    data = open_event_page(browser, report)
    assert not find(browser, "#explanation").is_displayed()
    button = find(browser, "#regions tbody button")
    button.send_keys(key) if key else button.click()
    shown = explanation(browser)
    assert find(browser, "#explanation-words").is_displayed()
    assert find(browser, "[aria-live=polite] #explanation-words")
    assert shown["title"] == "Region 1"
    scores = "The highest score this spot had in any earlier date was 0.05."
    assert shown["words"] == f"Most similar to 2018-10-02 (0.71). {scores}"
    assert shown["marks"] == ["mark other", "mark best", "mark gap", "mark other"]
    assert shown["dates"] == DATES
    assert shown["limit"] == ["1 − threshold = 0.92"]
    assert "2018-10-02: 0.71, 2019-03-11: no data" in shown["label"]
    assert find(browser, "#similarities").get_attribute("role") == "img"
    assert find(browser, "#no-data-key").is_displayed()
    for side, index in (("left", 1), ("right", 4)):
        assert find(browser, f"#{side}-photo").get_attribute("src").endswith(data["photos"][index]["file"])
    # On one axis, with the line above all marks.
    best, middle, lowest = (pixels_down(browser, f"#similarities circle:nth-of-type({n})") for n in (2, 1, 4))
    assert pixels_down(browser, "#similarities path.limit") < best < middle < lowest
    assert (lowest - middle) / (middle - best) == pytest.approx(0.2 / 0.2149, rel=0.02)


def test_the_explanation_disappears_with_the_selection(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    button = find(browser, "#regions tbody button")
    for clear in (lambda: find(browser, "body").send_keys(webdriver.Keys.ESCAPE), button.click):
        button.click()
        assert find(browser, "#explanation").is_displayed()
        clear()
        assert not find(browser, "#explanation").is_displayed()
        assert not find(browser, "#region-detail").is_displayed()
        assert [find(browser, f"#{side}").get_attribute("value") for side in ("left", "right")] == ["1", "4"]


def test_a_number_in_the_image_explains_its_region(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    find(browser, "#pins button").click()
    assert explanation(browser)["title"] == "Region 1"
    assert find(browser, "#similarities").is_displayed()


def test_missing_comparisons_are_said(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    say = "return explainInWords({similarities: arguments[0], best: arguments[1], usual: null}, ['2018', '2019'])"
    assert browser.execute_script(say, [None, 0.5], 1) == (
        "Most similar to 2019 (0.50). There is no score of earlier dates: no two of them could be compared here."
    )
    nothing = "No earlier date could be compared: too little data here."
    assert browser.execute_script(say, [None, None], None) == nothing
    photos = [find(browser, f"#{side}-photo").get_attribute("src") for side in ("left", "right")]
    browser.execute_script(
        "Object.assign(DATA.explanation.regions[0], {similarities: [null, null, null, null], best: null, usual: null})"
    )
    find(browser, "#regions tbody button").click()
    shown = explanation(browser)
    assert shown["words"] == nothing
    assert shown["marks"] == ["mark gap"] * 4
    assert [find(browser, f"#{side}-photo").get_attribute("src") for side in ("left", "right")] == photos


@pytest.mark.parametrize("count", [1, 2, 20, 50])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_chart_fits_its_card(browser: Any, report: Path, count: int, width: int) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    open_event_page(browser, report)
    browser.execute_script(
        "const dates = Array.from({length: arguments[0]}, (_, i) => `${1970 + i}-06-14 a long text`);"
        "DATA.explanation.dates.splice(0, 4, ...dates);"
        "const similarities = dates.map((_, i) => i % 3 ? i / 100 - 0.1 : 0.9);"
        "Object.assign(DATA.explanation.regions[0], {similarities, best: 0});",
        count,
    )
    find(browser, "#regions tbody button").click()
    shown = explanation(browser)
    assert len(shown["marks"]) == count
    assert len(shown["dates"]) == (count if count <= 20 else count // 3 + 1)
    assert all(text.startswith(f"{1970 + i * (3 if count > 20 else 1)}") for i, text in enumerate(shown["dates"]))
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(f"return {overflow}") == 0
    outside = browser.execute_script(
        "const card = document.getElementById('explanation').closest('.card').getBoundingClientRect();"
        "const parts = Array.from(document.querySelectorAll('#similarities :is(text, circle, path)'));"
        "return parts.filter(part => {"
        "const box = part.getBoundingClientRect();"
        "return box.left < card.left || box.right > card.right || box.bottom > card.bottom;"
        "}).map(part => part.textContent)"
    )
    assert outside == []


def test_a_page_without_explanation_has_no_panel(browser: Any, report: Path) -> None:
    open_event_page(browser, report, HOSTILE)
    photos = [find(browser, f"#{side}-photo").get_attribute("src") for side in ("left", "right")]
    find(browser, "#regions tbody tr").click()
    assert find(browser, "#layer-marked").is_displayed()
    assert not browser.find_elements("css selector", "#explanation")
    assert [find(browser, f"#{side}-photo").get_attribute("src") for side in ("left", "right")] == photos


def test_the_image_can_be_zoomed(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    width = "document.getElementById('stage').clientWidth"
    before = browser.execute_script(f"return {width}")
    find(browser, "#zoom-in").click()
    find(browser, "body").send_keys("+")
    assert browser.execute_script(f"return {width}") == pytest.approx(2 * before, abs=2)
    find(browser, "#zoom-fit").click()
    assert browser.execute_script(f"return {width}") == before


def test_arrow_keys_open_the_next_and_previous_event(browser: Any, report: Path) -> None:
    order = sorted([FIRE, CONTROL, HOSTILE, PARTIAL, MANY])
    open_event_page(browser, report, order[0])
    for name in order[1:]:
        find(browser, "body").send_keys(webdriver.Keys.ARROW_RIGHT)
        wait_for(browser, f"location.href.includes('{slug(name)}.html') && document.body.dataset.ready")
        assert text_of(browser, "h1").startswith(name)
    find(browser, "body").send_keys(webdriver.Keys.ARROW_RIGHT)  # no effect on the last event
    find(browser, "body").send_keys(webdriver.Keys.ARROW_LEFT)
    wait_for(browser, f"location.href.includes('{slug(order[-2])}.html') && document.body.dataset.ready")


def test_html_in_a_name_is_shown_as_text(browser: Any, report: Path) -> None:
    open_overview(browser, report)
    assert browser.title.startswith("AnomalyCD")
    open_event_page(browser, report, HOSTILE)
    assert browser.title == f"{HOSTILE} – AnomalyCD"
    assert text_of(browser, "h1").startswith(HOSTILE)
    assert HOSTILE in browser.execute_script("return Array.from(document.getElementById('jump').options, o => o.text)")


def test_missing_maps_of_a_partial_result_are_named(browser: Any, report: Path) -> None:
    open_overview(browser, report)
    assert config.ANOMALY_MAP_NAME in text_of(browser, "#events")
    assert "0 images without" in text_of(browser, "#events .problem")
    open_event_page(browser, report, PARTIAL)
    assert config.ANOMALY_MAP_NAME in text_of(browser, ".notice")
    assert not browser.find_elements("css selector", "[data-layer=binary]")
    find(browser, "[data-layer=change]").click()
    assert count_painted(browser, "change") > 0
    open_event_page(browser, report, CONTROL)
    assert not browser.find_elements("css selector", "[data-layer=outcome]")


@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_a_phone_in_light_and_dark_mode(browser: Any, report: Path, dark: bool) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for open_page in (open_overview, open_event_page):
        open_page(browser, report)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        lightness = sum(int(number) for number in ground.strip("rgb()").split(",")) / 3
        assert (lightness < 60) == dark


def test_page_size_is_limited(browser: Any, report: Path) -> None:
    for page in (report / "index.html", report / "events" / f"{slug(FIRE)}.html"):
        browser.get(page.as_uri())
        wait_for(browser, "document.readyState === 'complete'")
        loaded = browser.execute_script("return performance.timing.loadEventEnd - performance.timing.navigationStart")
        print(f"{page.name}: {loaded} ms")
        needed = [page, *(page.parent / page.stem).glob("*"), *(report / "assets").glob("*")]
        assert sum(path.stat().st_size for path in needed if path.is_file()) < LOAD_LIMIT


# --- What the page opens on -------------------------------------------------------------------------------------------
def test_the_page_opens_on_the_highest_region(browser: Any, report: Path) -> None:
    open_event_page(browser, report, HOSTILE, selected=True)
    assert text_of(browser, "#region-title") == "Region 1"
    assert find(browser, "#layer-marked").is_displayed()
    assert browser.current_url.endswith("#region-1")
    pin, frame, swipe = (find(browser, selector).rect for selector in ("#pins .selected", "#frame", "#handle"))
    assert frame["x"] < pin["x"] < frame["x"] + frame["width"]
    assert frame["y"] < pin["y"] < frame["y"] + frame["height"]
    assert swipe["x"] + swipe["width"] / 2 < pin["x"]  # the monitor image is seen there
    assert find(browser, "#scale").text.endswith(" m")
    assert browser.execute_script(
        "return parseFloat(document.querySelector('#north b').style.rotate)"
    ) == pytest.approx(0, abs=3)


def test_an_address_names_its_region(browser: Any, report: Path) -> None:
    open_event_page(browser, report, MANY)
    browser.execute_script("location.hash = '#region-2'")
    wait_for(browser, "document.getElementById('region-title').textContent === 'Region 2'")
    browser.refresh()
    wait_for(browser, "document.body.dataset.ready")
    assert text_of(browser, "#region-title") == "Region 2"
    place = browser.execute_script("return copiedText(placeOf(DATA, DATA.regions.x[1], DATA.regions.y[1]))")
    latitude, longitude = place.split(", ")
    assert find(browser, "#region-map").get_attribute("href").endswith(f"#map=17/{latitude}/{longitude}")


def test_regions_can_be_filtered_and_follow_the_threshold(browser: Any, report: Path) -> None:
    data = open_event_page(browser, report, MANY)
    regions, everything = data["regions"], listed(browser)
    assert everything == [1, 2, 3, 4, 5]
    assert regions["mean"] == pytest.approx(SCORES, abs=1e-4)
    move_slider(browser, "#least-score", 0.25)
    assert listed(browser) == [1, 2, 3]
    assert text_of(browser, "#regions-shown") == "3 of 5"
    move_slider(browser, "#least-area", (regions["pixels"][1] + 1) * data["pixelArea"])
    assert listed(browser) == [3]
    for name in ("score", "area"):
        move_slider(browser, f"#least-{name}", "")
    move_slider(browser, "#threshold", 25)
    wait_for(browser, "document.querySelectorAll('#regions tbody tr').length === 3")
    assert listed(browser) == [1, 2, 3]
    assert not browser.find_elements("css selector", "#least-novelty")


# --- Review -----------------------------------------------------------------------------------------------------------
def test_a_review_is_kept_and_exported(browser: Any, report: Path, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    open_event_page(browser, report, MANY, selected=True)
    find(browser, "body").send_keys("a")
    find(browser, "#note").send_keys("<b>roof</b> gone")
    find(browser, "#reviewer").send_keys("Ada")
    find(browser, "h1").click()
    find(browser, "body").send_keys("n", "r")
    browser.refresh()
    wait_for(browser, "document.body.dataset.ready")
    assert text_of(browser, "#review-summary").startswith("Reviewed 2 of 5: 1 accepted, 1 rejected, 0 uncertain")
    assert [find(browser, f"[data-region='{number}'] [data-column=verdict]").text for number in (1, 2)] == ["✓", "✗"]
    find(browser, "#export").click()
    path = tmp_path / f"review_{slug(MANY)}.geojson"
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    reviews = read_reviews([path])
    assert [
        (one.event, one.verdict, one.note, one.reviewer) for one in sorted(reviews, key=lambda one: one.verdict)
    ] == [
        (MANY, "accepted", "<b>roof</b> gone", "Ada"),
        (MANY, "rejected", "", "Ada"),
    ]
    regions = shutil.copyfile(report.parent / "stage2" / MANY / config.REGIONS_NAME, tmp_path / config.REGIONS_NAME)
    assert add_reviews(regions, reviews) == (2, [])
    assert {one.number: one.judgement.verdict for one in read_judgements(regions)} == {1: "accepted", 2: "rejected"}
    browser.execute_script("localStorage.clear()")


def test_a_verdict_of_the_polygons_is_shown_and_is_not_the_readers_own(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    shutil.copytree(report.parent / "stage2" / MANY, tmp_path / "stage2" / MANY)
    path = tmp_path / "stage2" / MANY / config.REGIONS_NAME
    assert add_reviews(path, [review("accepted", "Bea", "roof", outline=outline_of(path))]) == (1, [])
    assert write_report(report.parent / "data", tmp_path, report / "reviewed", "--event", MANY) == 0
    data = open_event_page(browser, report / "reviewed", MANY, selected=True)
    assert text_of(browser, "#filed") == "In the polygons' file: accepted, by Bea: roof"
    assert text_of(browser, "[data-region='1'] [data-column=verdict]") == "✓"
    stored = "return JSON.parse(localStorage.getItem(arguments[0]) ?? '{\"entries\": []}').entries.length"
    assert browser.execute_script(stored, data["reviewKey"]) == 0
    find(browser, "body").send_keys("a")
    assert text_of(browser, "#filed") == ""
    assert browser.execute_script(stored, data["reviewKey"]) == 1
    browser.execute_script("localStorage.clear()")


def test_regions_are_recognised_by_place_and_shape(browser: Any, report: Path) -> None:
    open_event_page(browser, report)
    find_region = "return findRegion(arguments[0], arguments[1])"
    regions = [{"box": [0, 0, 10, 10], "pixels": 90}, {"box": [20, 0, 30, 10], "pixels": 90}]
    for box, pixels, index in (
        ([21, 0, 31, 10], 80, 1),
        ([20, 0, 30, 10], 30, None),  # another shape
        ([26, 0, 36, 10], 90, None),  # another place
        ([1, 1, 10, 10], 60, 0),
    ):
        found = browser.execute_script(find_region, regions, {"box": box, "pixels": pixels})
        assert found == (None if index is None else regions[index])


def test_verdicts_without_a_region_are_listed(browser: Any, report: Path) -> None:
    data = open_event_page(browser, report)
    entry = {
        "box": [0, 0, 1, 1],
        "pixels": 1,
        "verdict": "accepted",
        "note": "<img src=x onerror=alert(1)>",
        "time": "",
    }
    stored = json.dumps({"reviewer": "<script>", "entries": [entry]})
    browser.execute_script("localStorage.setItem(arguments[0], arguments[1])", data["reviewKey"], stored)
    browser.refresh()
    wait_for(browser, "document.body.dataset.ready")
    assert text_of(browser, "#homeless-title") == "1 verdict of an earlier run fit no region"
    assert text_of(browser, "#homeless-list li") == "accepted: x 1, y 1: <img src=x onerror=alert(1)>"
    browser.execute_script("document.getElementById('discard').click()")
    assert not find(browser, "#homeless").is_displayed()
    browser.execute_script("localStorage.clear()")
