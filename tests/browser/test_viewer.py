"""`paravt view` in a browser: filter, seek, colour, play, compare; `make test-browser`.

Debian's chromium through Playwright; without either the file is skipped.
"""

import os
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.builders import SIZE, make_task, write_manifest
from support.viewed_runs import HOSTILE, write_run

pytest.importorskip("playwright.sync_api")
pytest.importorskip("starlette")  # the extra `view`

import uvicorn
from playwright import sync_api

from train.config import recipe
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.run import RunConfig, TrainConfig
from train.viewer.runs import Runs
from train.viewer.server import Viewer

BROWSER = os.environ.get("PARAVT_BROWSER") or shutil.which("chromium") or ""
PATIENCE = 60_000  # milliseconds, for a machine with much else to do
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on PATH")


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory, clip):
    """Where runs are served, and their folder: `demo` can be played, `growing` goes on."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(clip, folder / Path(clip).name)
    tasks = [make_task(clip), make_task(clip, "other", answer="A")]
    config = TrainConfig(
        env=EnvConfig(
            tasks=write_manifest(folder / "tasks.jsonl", tasks), frame_size=SIZE, max_turns=2,
            max_crops=2, frames_per_crop=2,
        ),
        evaluation=EvalConfig(frame_budgets=(4,)),
        run=RunConfig(name="demo", folder=str(folder)),
    )  # fmt: skip
    recipe.save(config, write_run(folder / "demo", clip))
    write_run(folder / "growing", clip)
    (folder / "growing" / "run.lock").touch()
    hostile = {name: HOSTILE for name in ("task_id", "family", "question", "gold", "answer")}
    write_run(folder / "hostile", clip, **hostile)
    viewer = Viewer(Runs([folder]))
    settings = uvicorn.Config(viewer.app(), port=0, log_level="error", ws="none")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    (socket,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{socket.getsockname()[1]}", folder
    server.should_exit = True
    thread.join()


@pytest.fixture(params=[(1440, "light"), (390, "dark")], ids=["wide light", "narrow dark"])
def page(chromium, served, request):
    """A page that asks nobody else and has no error in its console."""
    address = served[0]
    width, scheme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=address
    )
    page, wrong = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda one: one.url.startswith(address) or wrong.append(one.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("console", lambda one: one.type == "error" and wrong.append(one.text))
    yield page
    context.close()
    assert [one for one in wrong if not one.startswith("data:")] == []


def fits(page):
    """Whether nothing is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_list_is_filtered_without_a_button(page):
    page.goto("/rollouts?run=demo&source=steps")
    assert page.get_by_role("status").inner_text().startswith("12 of 12 rollouts")
    page.locator("select[name=outcome]").select_option("form lost")
    page.wait_for_url(re.compile("outcome=form"))
    assert page.get_by_role("status").inner_text().startswith("3 of 12 rollouts")
    page.locator("select[name=source]").select_option("step:1")
    page.wait_for_url(re.compile("source=step%3A1"))
    assert page.get_by_role("status").inner_text().startswith("1 of 4 rollouts")
    assert fits(page)
    page.get_by_role("link", name="colour", exact=True).click()
    page.wait_for_url(re.compile("/group"))
    assert page.locator(".columns section").count() == 4 and fits(page)


def test_marks_and_the_time_line_move_the_player(page):
    page.goto("/rollout?run=demo&source=step:1&n=0")
    at = "document.getElementById('player').currentTime"
    gold = page.locator('.timeline a[aria-label^="gold"]')
    gold.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(at) == pytest.approx(6.0)
    line = page.locator(".timeline")
    box = line.bounding_box()
    middle = 70 + (706 - 70) / 2
    line.click(position={"x": box["width"] * middle / 720, "y": box["height"] - 3})
    assert page.evaluate(at) == pytest.approx(15.0, abs=0.3)
    page.locator(".crop img").first.click()
    assert page.evaluate(at) == pytest.approx(6.0)
    loaded = "[...document.querySelectorAll('.crop img')].every(i => i.complete && i.naturalWidth)"
    page.wait_for_function(loaded)
    assert fits(page)


def test_tokens_change_their_colour_and_say_their_numbers(page):
    page.goto("/rollout?run=demo&source=step:1&n=0")
    token = page.locator('.tokens .t:text-is("look")')
    colour = "e => getComputedStyle(e).backgroundColor"
    seen = {token.evaluate(colour)}
    for mode in ("log-probability", "advantage", "ratio"):
        page.get_by_label(mode).check()
        seen.add(token.evaluate(colour))
        assert page.locator(".legend:visible").count() == 1
    assert len(seen) >= 3
    token.hover()
    said = page.locator("#token").inner_text()
    assert "log-probability -0.010" in said and "ratio 0.500" in said


def test_a_rollout_of_an_evaluation_has_tokens_and_bars(page):
    page.goto("/rollout?run=demo&source=eval:after&n=0")
    assert "log-probability" in page.locator('.tokens .t:text-is("look")').get_attribute("title")
    assert page.get_by_label("advantage").is_disabled() and page.get_by_label("role").is_enabled()
    page.get_by_label("log-probability").check()
    assert "+1.500" in page.locator(".bars").text_content()
    assert "it is blue" in page.locator(".crop").inner_text() and fits(page)
    page.goto("/rollout?run=demo&source=eval:after&n=1")
    assert "No tokens were kept of this rollout" in page.locator("main").inner_text()


@pytest.mark.parametrize(
    "place",
    ["/?all=1", "/rollouts?run=demo&source=steps", "/rollout?run=demo&source=step:1&n=0", "/play"],
)
def test_every_control_is_reached_by_the_keyboard_and_shows_it(page, place):
    page.goto(place)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, select, input, video[controls]')]
        .filter(e => e.offsetParent !== null || e.closest('svg'))
        .filter(e => !e.disabled && e.type !== 'hidden' && (e.type !== 'radio' || e.checked))
        .map((e, i) => (e.dataset.walk = i, i)).length"""
    )
    reached, unmarked = set(), []
    for _ in range(3 * wanted + 40):
        page.keyboard.press("Tab")
        walk, tag, ring = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
            return [e.dataset.walk, e.tagName, s.outlineStyle + ' ' + s.outlineWidth] }"""
        )
        if walk is not None:
            reached.add(walk)
            if tag != "VIDEO" and (ring.startswith("none") or ring.endswith(" 0px")):
                unmarked.append((walk, tag))
        if len(reached) == wanted:
            break
    assert len(reached) == wanted and unmarked == []


def test_a_page_of_another_origin_can_start_no_episode(chromium, served):
    address, folder = served
    before = sorted(folder.rglob("human"))

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>elsewhere</title>")

        def log_message(self, *said):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{elsewhere.server_port}/")
        asked = """async (address) => { const out = []; for (const kind of ['application/json',
            'text/plain']) for (const mode of ['cors', 'no-cors']) { try { const answer = await
            fetch(address + '/play/start', {method: 'POST', mode, headers: {'content-type': kind},
            body: JSON.stringify({run: 'demo', task: 'colour', k: 4})}); out.push(answer.type) }
            catch (error) { out.push('refused') } } return out }"""
        found = page.evaluate(asked, address)
        framed = page.evaluate(
            """(address) => new Promise(done => { const f = document.createElement('iframe');
            f.src = address; f.onload = () => done(f.contentDocument === null ? 'closed' : 'open');
            document.body.append(f) })""",
            address,
        )
        context.close()
        elsewhere.shutdown()
    assert set(found) <= {"refused", "opaque"} and found[0] == "refused"
    assert framed == "closed"
    assert sorted(folder.rglob("human")) == before


def test_hostile_text_is_shown_as_text(page):
    for address in ("/rollouts?run=hostile&source=steps", "/rollout?run=hostile&source=step:1&n=0"):
        page.goto(address)
        assert "<script>alert(1)</script>" in page.locator("body").inner_text()
        assert page.locator("img[src=x]").count() == 0


def test_an_episode_is_played_by_hand(page):
    page.goto("/play?run=demo")
    page.locator("#task").select_option("colour")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_url(re.compile("/play/episode"))
    assert page.locator(".frames.grid img").count() == 4 and fits(page)
    assert "gold" not in page.content()
    line = page.locator("#line .timeline")
    line.scroll_into_view_if_needed()
    box = line.bounding_box()

    def x(second):
        return box["x"] + box["width"] * (70 + (706 - 70) * second / 30) / 720

    y = box["y"] + box["height"] / 2
    page.mouse.move(x(5), y)
    page.mouse.down()
    page.mouse.move(x(9), y, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Add a window").press("Enter")  # by the keyboard
    second = page.locator("#windows p").nth(1).locator("input")
    second.nth(0).fill("10")
    second.nth(1).fill("14")
    assert page.locator("#line .new").count() == 2
    page.get_by_role("button", name="Look at 2 windows").click()
    page.wait_for_selector("#note1")
    drawn = page.locator(".crop h3").nth(0).inner_text()
    start, end = map(float, re.search(r"([\d.]+)-([\d.]+) s", drawn).groups())
    assert start == pytest.approx(5, abs=0.4) and end == pytest.approx(9, abs=0.4)
    assert "10.0-14.0 s" in page.locator(".crop h3").nth(1).inner_text()
    page.locator("#note1").fill("nothing")
    page.get_by_role("button", name="Answer").click()
    assert page.locator("#said").inner_text() == "There is no answer yet."
    page.get_by_label("B. blue").check()
    page.get_by_role("button", name="Answer").click()
    page.wait_for_selector(".lead")
    assert "right 1.00: you said B, gold is B" in page.locator(".lead").inner_text()
    assert page.locator(".bars").count() == 1 and fits(page)


def test_two_runs_are_compared(page):
    page.goto("/compare")
    page.locator("select[name=a]").select_option("demo:after")
    page.locator("select[name=b]").select_option("hostile:after")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("text=2 samples of both")
    assert page.locator(".charts svg").count() >= 3 and fits(page)


@pytest.mark.parametrize(
    "place", ["/?all=1", "/run?run=demo", "/evaluation?run=demo&name=after", "/play?run=demo"]
)
def test_pages_fit_and_begin_with_a_way_past_the_links(page, place):
    page.goto(place)
    assert fits(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_curves_grow_while_a_run_goes_on(page, served):
    path = served[1] / "growing" / "metrics.jsonl"
    steps = len(path.read_text().splitlines())
    page.goto("/run?run=growing")
    assert f"{steps} of 10 steps, running" in page.locator("#live").inner_text()
    with path.open("a") as file:
        file.write(f'{{"step": {steps}, "reward": 1.0, "accuracy": 1.0}}\n')
    page.wait_for_selector(f"text={steps + 1} of 10 steps, running")
    assert page.locator("#live svg").count() >= 3
