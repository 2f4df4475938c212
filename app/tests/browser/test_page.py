"""What a person can do with the page: with a mouse, a finger, the keyboard alone, on a phone, in the dark."""

import hashlib
from pathlib import Path

import pytest
from chromium import Page
from PIL import Image
from processes import Server, Start
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.ui import Select
from waiting import eventually

CELLS = 8
# Of the whole page: text whose contrast with what is behind it is below the 4.5 (large text: 3) of WCAG AA.
PALE = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (text) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const light = (text) => [...rgba(text)].slice(0, 3).map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const { backgroundColor } = getComputedStyle(node);
    if (rgba(backgroundColor)[3] === 255) return backgroundColor;
  }
};
return [...document.body.querySelectorAll("*")].filter((node) =>
  node.checkVisibility({ opacityProperty: true }) && !node.closest(".invitation, noscript, option, [disabled]") &&
  [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())
).map((node) => {
  const style = getComputedStyle(node);
  const [one, other] = [light(node.closest("svg") ? style.fill : style.color), light(behind(node))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  return { text: node.textContent.trim().slice(0, 30), contrast, least: parseFloat(style.fontSize) >= 24 ? 3 : 4.5 };
}).filter(({ contrast, least }) => contrast < least);
"""
MEASURED = """(path, body, headers) => {
  headers.set("X-Cache", "hit");
  if ("label_names" in body) body.benchmarks = [1, 2, 4, 8, 16, 32].map((batch_size) => ({
    batch_size, items_per_second: 900 * batch_size ** 0.8, p50_ms: batch_size * 0.8, p95_ms: 1.1 + batch_size * 0.9,
    p99_ms: 1.5 + batch_size, device: "cuda:0", node: "gpu-1", finished_at: "2026-03-01T10:00:00Z" }));
}"""


def picture(folder: Path, full: int) -> Path:
    """A PNG which the stub takes for `full`: that many white pixels, on black."""
    image = Image.new("L", (CELLS, CELLS))
    image.putdata([255] * full + [0] * (CELLS * CELLS - full))
    path = folder / f"{full}.png"
    image.save(path)
    return path


def draw(page: Page) -> None:
    """Down the middle of the sheet, with a mouse."""
    sheet = page.one("#sheet")
    down = sheet.size["height"] // 4
    actions = ActionChains(page.browser, duration=50)
    actions.w3c_actions.pointer_action.move_to(sheet, 0, -down).pointer_down().move_to(sheet, 0, down).pointer_up()
    actions.perform()


def test_draw_and_see_what_it_is(page: Page, server: Server) -> None:
    page.open(server)
    page.is_ready()
    assert page.one("#result").get_attribute("data-state") == "empty"
    draw(page)
    assert page.answered().isdigit()
    assert page.text("#sure") == "91.0 %"
    assert [bar.text for bar in page.all("#bars .share")] == ["91.0 %", *["1.0 %"] * 4]
    widths = [bar.size["width"] for bar in page.all("#bars i")]
    assert widths[0] > 20 * widths[1] > 0
    facts = page.text("#facts")
    assert "stub 9.8.7" in facts and " ms" in facts
    assert "Cache" not in facts  # it did not say
    assert len(page.text("#facts code")) >= 16
    assert page.complaints() == []


def test_strokes_fill_the_frame_unless_told_otherwise(page: Page, server: Server, tmp_path: Path) -> None:
    rows = """
      const { data } = document.getElementById("seen").getContext("2d").getImageData(0, 0, 8, 8);
      return [...Array(8).keys()].filter((y) => [...Array(8).keys()].some((x) => data[(y * 8 + x) * 4] > 60));"""
    page.open(server)
    page.is_ready()
    draw(page)  # from a quarter to three quarters of the height
    page.answered()
    assert page.run(rows) == [0, 1, 2, 3, 4, 5, 6, 7]
    page.one("#fit").click()
    assert page.run(rows) == [2, 3, 4, 5] or page.run(rows) == [1, 2, 3, 4, 5, 6]
    page.one("#fit").click()
    page.one("#file").send_keys(str(picture(tmp_path, 9)))  # a picture stays as it is
    page.shows("#label", "9")
    assert page.run(rows) == [0, 1]


def test_a_finger_draws_too(page: Page, server: Server) -> None:
    page.phone()
    page.open(server)
    page.is_ready()
    page.run("document.getElementById('sheet').scrollIntoView({block: 'center'})")
    before = page.run("return scrollY")
    box = page.run(
        "const {left, top, width} = document.getElementById('sheet').getBoundingClientRect();return {left, top, width}"
    )
    points = [{"x": box["left"] + box["width"] / 2, "y": box["top"] + box["width"] * part / 8} for part in (2, 4, 6)]
    for kind, point in zip(("touchStart", "touchMove", "touchMove"), points, strict=True):
        page.devtools("Input.dispatchTouchEvent", type=kind, touchPoints=[point])
    page.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert page.answered().isdigit()
    assert page.run("return scrollY") == before  # the sheet does not run away from the finger


def test_a_file_arrives_as_it_is(page: Page, server: Server, tmp_path: Path) -> None:
    page.open(server)
    page.is_ready()
    for full in (7, 3):
        page.one("#file").send_keys(str(picture(tmp_path, full)))
        page.shows("#label", str(full))
    page.one("#invert").click()
    page.shows("#label", str((64 - 3) % 10))
    page.one("#clear").click()
    eventually(lambda: page.one("#result").get_attribute("data-state") == "empty", "nothing is left")


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(page: Page, server: Server, event: str) -> None:
    page.open(server)
    page.is_ready()
    page.run(
        """
        const sheet = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
        const ink = sheet.getContext("2d");
        ink.fillRect(0, 0, 8, 8); ink.fillStyle = "#fff"; ink.fillRect(0, 0, 4, 1);
        sheet.toBlob((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "a.png", { type: "image/png" }));
          document.body.dispatchEvent(arguments[0] === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
            : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        });""",
        event,
    )
    assert page.answered() == "4"


def test_what_is_no_picture_is_refused_here(page: Page, server: Server, tmp_path: Path) -> None:
    page.open(server)
    page.is_ready()
    (tmp_path / "notes.png").write_text("no picture")
    page.one("#file").send_keys(str(tmp_path / "notes.png"))
    page.shows("#problem", "notes.png is not a picture this browser can read.")


def test_choose_a_model(page: Page, two_models: Server, tmp_path: Path) -> None:
    page.open(two_models)
    page.is_ready()
    assert page.text("#model-facts") == "8 \u00d7 8 grey, 10 labels, 100 % accurate"
    assert not page.one("#ink-field").is_displayed()
    Select(page.one("#model")).select_by_value("colours")
    assert page.text("#model-facts").startswith("32 \u00d7 32 colour")
    assert page.one("#ink-field").is_displayed()
    assert page.run("return [arguments[0].width, arguments[0].height]", page.one("#seen")) == [32, 32]
    red = Image.new("RGB", (32, 32))
    red.paste((255, 0, 0), (0, 0, 2, 1))
    red.save(tmp_path / "red.png")
    page.one("#file").send_keys(str(tmp_path / "red.png"))
    assert page.answered() == "2"  # one channel of two pixels: the colour was kept
    assert "colours 9.8.7" in page.text("#facts")
    assert [title.text.split()[0] for title in page.all("#catalog h3")] == ["digits", "colours"]


def test_the_keyboard_alone_is_enough(page: Page, server: Server) -> None:
    page.open(server)
    page.is_ready()
    keyboard, passed = ActionChains(page.browser, duration=0), []
    for _ in range(10):
        keyboard.send_keys(Keys.TAB).perform()
        keyboard.reset_actions()
        passed.append(page.run("return document.activeElement.id"))
        outline = page.run("return getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px", passed
        if passed[-1] == "sheet":
            break
    assert passed[-2:] == ["model", "sheet"]
    assert page.one("#cursor").is_displayed()
    for _ in range(4):
        keyboard.send_keys(" ", Keys.ARROW_RIGHT)
    keyboard.perform()
    keyboard.reset_actions()
    page.shows("#label", "4")
    assert page.run("return document.getElementById('says').textContent") == "4, 91.0 %"
    assert "row 4, column 8" in page.run("return document.getElementById('sheet-says').textContent")
    keyboard.send_keys(" ", " ").perform()  # the last cell: painted, then not
    page.shows("#label", "4")
    rest = []
    for _ in range(6):
        keyboard.reset_actions()
        keyboard.send_keys(Keys.TAB).perform()
        rest.append(page.run("return document.activeElement.id"))
    assert rest == ["choose", "invert", "clear", "classify", "at-once", "fit"]


def test_every_control_has_a_name(page: Page, two_models: Server) -> None:
    page.open(two_models)
    page.is_ready()
    nodes = page.devtools("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "textbox", "checkbox", "link", "application", "image"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles and not node["ignored"]]
    assert {"button", "combobox", "checkbox", "link", "application"} <= {node["role"]["value"] for node in found}
    assert [node for node in found if not node["name"]["value"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(page: Page, server: Server, scheme: str) -> None:
    page.media("prefers-color-scheme", scheme)
    page.answers(MEASURED)
    page.open(server)
    page.is_ready()
    assert page.run(PALE) == []
    draw(page)
    page.answered()
    assert page.run(PALE) == []
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(16, 22, 21)") == (scheme == "dark")


def test_a_phone_scrolls_only_downwards(page: Page, two_models: Server, tmp_path: Path) -> None:
    page.phone()
    page.answers(MEASURED)
    page.open(two_models)
    page.is_ready()
    page.one("#file").send_keys(str(picture(tmp_path, 5)))
    page.answered()
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    wide = "return document.documentElement.scrollWidth"
    assert page.run(wide) == 375
    small = page.run(
        "return [...document.querySelectorAll('button, select')].filter((one) => one.offsetHeight)"
        ".filter((one) => one.offsetHeight < 44 && !one.matches('.link')).map((one) => one.id)"
    )
    assert small == []


def test_nothing_moves_for_who_asked_for_that(page: Page, server: Server) -> None:
    page.media("prefers-reduced-motion", "reduce")
    page.open(server)
    page.is_ready()
    draw(page)
    page.answered()
    assert page.run("return document.getAnimations().length") == 0
    assert page.run("return getComputedStyle(document.querySelector('#bars i')).animationName") == "none"


def test_the_figures_of_a_benchmark_are_plotted(page: Page, server: Server, tmp_path: Path) -> None:
    page.answers(MEASURED)
    page.open(server)
    page.is_ready()
    names = [plot.get_attribute("aria-label") for plot in page.all(".plot svg")]
    assert names[0].startswith("Throughput in images/s: 900 at batch size 1, ")
    assert names[1].startswith("p95 latency in ms: 2 at batch size 1, ")
    assert len(page.all(".plot circle")) == 12
    assert "cuda:0 on gpu-1" in page.text(".measured")
    page.one("summary").click()
    assert [cell.text for cell in page.all("tbody tr:last-child td")] == ["32", "14,400", "25.6", "29.9", "33.5"]
    page.one("#file").send_keys(str(picture(tmp_path, 5)))
    page.answered()
    assert "Cache\nhit" in page.text("#facts")


def test_without_figures_it_says_so(page: Page, server: Server) -> None:
    page.open(server)
    page.is_ready()
    assert page.text(".unmeasured") == "Speed: not measured yet"


def test_a_problem_is_shown_as_the_service_tells_it(page: Page, start: Start, tmp_path: Path) -> None:
    server = start("5", GENAI_DEADLINE_SECONDS="0.1")
    page.open(server)
    page.is_ready()
    page.one("#file").send_keys(str(picture(tmp_path, 5)))
    page.shows("#problem", "Gateway Timeout (504)\nThe answer was not ready within the time this request may take.")
    assert len(page.text("#problem code")) >= 16


def test_a_service_that_is_gone(page: Page, server: Server, tmp_path: Path) -> None:
    page.open(server)
    page.is_ready()
    server.process.kill()
    server.process.wait()
    page.one("#file").send_keys(str(picture(tmp_path, 5)))
    page.shows("#problem", "The service cannot be reached.")


def test_a_model_that_is_still_loaded(page: Page, start: Start) -> None:
    page.open(start("loading"))
    page.shows("#status", "Loading the model")
    assert "appears here" in page.text("#catalog")
    assert not page.one("#model").is_enabled()


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten(page: Page, start: Start, tmp_path: Path) -> None:
    key = "open-sesame"
    (tmp_path / "keys").write_text(f"shop {hashlib.sha256(key.encode()).hexdigest()}\n")
    page.open(start(GENAI_API_KEYS_FILE=str(tmp_path / "keys")))
    page.shows("#access-why", "An API key is needed")
    field = page.one("#key")
    assert field.get_attribute("type") == "password"
    assert page.run("return document.activeElement.id") == "key"
    field.send_keys("wrong", Keys.ENTER)
    page.shows("#access-why", "This API key is not known.")
    field.send_keys(key, Keys.ENTER)
    page.is_ready()
    assert not page.one("#access").is_displayed()
    page.one("#file").send_keys(str(picture(tmp_path, 6)))
    assert page.answered() == "6"
    assert page.run("return [localStorage.length, document.cookie, Object.values(sessionStorage)]") == [0, "", [key]]
    page.browser.refresh()
    page.is_ready()
    page.one("#forget").click()
    page.shows("#access-why", "An API key is needed")
    assert page.run("return sessionStorage.length") == 0


def test_behind_a_prefix_every_path_still_fits(page: Page, server: Server) -> None:
    page.open(server)
    page.is_ready()
    paths = page.run("return performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)")
    assert "/v1/models" in paths
    assert page.run('return [...document.querySelectorAll(\'[src^="/"], [href^="/"]\')].length') == 0
