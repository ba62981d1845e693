"""A picture of a page of `paravt view`, as the README shows it.

Serves a run, opens one of its pages in Debian's chromium through Playwright (`make test-browser`
installs it) and writes a PNG of few colours. The README's own is of a short run:

    paravt train paragrpo_mini --run.name=tiny --run.steps=4 --run.keep_rollouts=16
    python benchmarks/view_picture.py runs/tiny --height 1680 --output docs/view.png
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from train.viewer.listing import Listed
from train.viewer.runs import Runs
from train.viewer.server import Viewer

COLOURS = 128


def interesting(runs: Runs, name: str) -> str:
    """The page of a kept rollout that looked at several moments and is right, the latest first."""
    found: list[tuple[int, int, Listed]] = [
        (one.executed + 10 * (one.correct > 0.5), step, one)
        for step in runs.kept(name)
        for _, one in runs.listed(name, [step])
    ]
    if not found:
        raise SystemExit(f"{name} has kept no rollouts (run.keep_rollouts)")
    _, step, one = max(found, key=lambda entry: (min(entry[0], 12), entry[1]))
    return "/rollout?" + urlencode({"run": name, "source": f"step:{step}", "n": one.place})


def main() -> None:
    """Serve, look, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--page", help="default: the page of a rollout that looked and is right")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=1400)
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    runs = Runs([args.run])
    (name,) = runs.folders()
    server = uvicorn.Server(
        uvicorn.Config(Viewer(runs).app(), port=0, log_level="error", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(
                viewport={"width": args.width, "height": args.height},
                color_scheme="dark" if args.dark else "light",
            )
            page.goto(f"http://127.0.0.1:{port}{args.page or interesting(runs, name)}")
            page.wait_for_load_state("networkidle")
            if page.locator("#player").count():
                mark = page.locator('.timeline a.seek[aria-label^="turn"]')
                if mark.count():
                    mark.first.press("Enter")
                    page.wait_for_function("!document.getElementById('player').seeking")
                    page.locator(":focus").evaluate("element => element.blur()")
            data = page.screenshot(full_page=True, clip={
                "x": 0, "y": 0, "width": args.width,
                "height": min(args.height, page.evaluate("document.body.scrollHeight")),
            })  # fmt: skip
            browser.close()
    finally:
        server.should_exit = True
        thread.join()
    Image.open(io.BytesIO(data)).convert("RGB").quantize(COLOURS).save(args.output, optimize=True)
    print(f"{args.output}: {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
