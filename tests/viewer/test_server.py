"""What the server answers, and to whom: pages, videos in ranges, and refusals."""

import re
from html.parser import HTMLParser

import pytest
from support.viewed_runs import HOSTILE, write_run

from train.viewer.page import assets
from train.viewer.runs import Runs

pytest.importorskip("starlette")  # the extra `view`

from starlette.testclient import TestClient

from train.viewer.server import Viewer

HOST = "http://127.0.0.1:8765"


@pytest.fixture
def serve(tmp_path, clip):
    """A function that serves a run made with some changes."""
    viewers = []

    def serving(video=clip, name="demo", **changes):
        folder = write_run(tmp_path / name, video, **changes)
        viewers.append(Viewer(Runs([folder])))
        return TestClient(viewers[-1].app(), base_url=HOST)

    yield serving
    for viewer in viewers:
        viewer.close()


class Markup(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.said = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_data(self, data):
        self.said.append(data)


PAGES = (
    "/?all=1",
    "/run?run=demo",
    "/curves?run=demo",
    "/evaluation?run=demo&name=after",
    "/rollouts?run=demo&source=steps",
    "/rollouts?run=demo&source=step:1",
    "/rollouts?run=demo&source=eval:after",
    "/group?run=demo&source=step:1&group=0",
    "/group?run=demo&source=eval:after&group=1",
    "/rollout?run=demo&source=step:1&n=2",
    "/rollout?run=demo&source=eval:after&n=0",
    "/compare?a=demo:after&b=demo:after",
)


@pytest.mark.parametrize("address", PAGES)
def test_every_page_and_every_link_on_it_answers(serve, address):
    client = serve()
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    page = Markup(answer.text)
    assert "style" not in [name for _, name, _ in page.attributes], "the policy forbids it"
    targets = {value for _, name, value in page.attributes if name in ("href", "src")}
    outside = {one for one in targets if not re.match(r"/|#t=|#content|data:,", one)}
    assert not outside
    for target in sorted(one for one in targets if one.startswith("/")):
        if not target.startswith("/play"):
            assert client.get(target).status_code == 200, target


def test_the_only_run_is_the_first_page(serve):
    answer = serve().get("/", follow_redirects=False)
    assert answer.status_code == 307 and answer.headers["location"] == "/run?run=demo"


@pytest.mark.parametrize("address", PAGES)
def test_text_of_a_model_cannot_become_markup(serve, address):
    names = ("task_id", "family", "question", "gold", "answer", "error", "stop_reason")
    hostile = dict.fromkeys(names, HOSTILE)
    crop = {"window": [1, 2], "status": HOSTILE, "message": HOSTILE, "frames": 1, "reading": 1}
    talk = {
        "version": 0, "prompt": HOSTILE, "pieces": [HOSTILE, HOSTILE], "roles": [1, 2],
        "logprobs": [None, -1.0], "advantages": [None, 1.0], "ratios": [None, 1.0],
    }  # fmt: skip
    hostile |= {
        "turns": [{"completion": HOSTILE, "crops": [crop]}],
        "terms": {HOSTILE: 1.0},
        "conversations": [talk | {"kind": "main"}, talk | {"kind": "subagent"}],
    }
    client = serve(**hostile)
    page = Markup(client.get(address).text)
    scripts = [value for tag, name, value in page.attributes if (tag, name) == ("script", "src")]
    assert page.tags.count("script") == len(scripts)
    assert all(re.fullmatch(r"/assets/\w+\.js", script) for script in scripts)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "x" not in [value for _, name, value in page.attributes if name == "src"]
    if "step" in address:
        assert any("<script>alert(1)" in said for said in page.said), "shown as text"


def test_every_answer_carries_the_policy(serve):
    client = serve()
    for address in ("/run?run=demo", "/assets/view.js", "/absent", "/run?run=absent"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost:8765", 200),
        ("[::1]:8765", 200),
        ("localhost", 200),
        ("rebound.example:8765", 403),
        ("127.0.0.1.rebound.example", 403),
        ("localhost.rebound.example:8765", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_of_this_machine_is_refused(serve, host, status):
    client = serve()
    assert client.get("/run?run=demo", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": None},
        {"origin": "http://127.0.0.1:9999"},
        {"content-type": "text/plain"},
        {"content-type": None},
    ],
)
def test_another_origin_cannot_post(serve, changes):
    headers = {"origin": HOST, "content-type": "application/json"} | changes
    client = serve()
    given = {name: value for name, value in headers.items() if value is not None}
    assert client.post("/run?run=demo", content=b"{}", headers=given).status_code == 403
    own = {"origin": HOST, "content-type": "application/json"}
    assert client.post("/run?run=demo", content=b"{}", headers=own).status_code == 405
    big = client.post("/run?run=demo", content=b" " * 70_000, headers=own)
    assert big.status_code == 403


@pytest.mark.parametrize(
    "address",
    [
        "/assets/../server.py",
        "/assets/%2e%2e/server.py",
        "/assets/..%2fserver.py",
        "/assets/",
        "/run?run=../demo",
        "/run?run=/etc",
        "/rollouts?run=demo&source=eval:../../after",
        "/evaluation?run=demo&name=/etc/passwd",
        "/rollout?run=demo&source=step:99&n=0",
        "/rollout?run=demo&source=step:0&n=99",
        "/rollouts?run=demo&source=steps&outcome=nonsense",
        "/rollouts?run=demo&source=steps&k=x",
        "/frame?run=demo&source=step:0&n=0&t=nan",
        "/frame?run=demo&source=step:0&n=0&t=-1",
        "/frame?run=demo&source=step:0&n=0&t=1&h=99999",
    ],
)
def test_what_is_no_part_of_a_run_is_not_served(serve, address):
    answer = serve().get(address)
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text and "import " not in answer.text


@pytest.mark.parametrize("kind", ["passwd", "url", "playlist", "folder", "absent", "nul"])
def test_a_run_that_names_another_file_as_its_video_gets_none(serve, tmp_path, clip, kind):
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
    video = {
        "passwd": "/etc/passwd",
        "url": "http://127.0.0.1:9/v.mp4",
        "playlist": str(tmp_path / "list.mp4"),
        "folder": str(tmp_path),
        "absent": str(tmp_path / "absent.mp4"),
        "nul": "a\0b",
    }[kind]
    client = serve(video)
    for address in ("/video", "/frame"):
        answer = client.get(f"{address}?run=demo&source=step:0&n=0&t=1")
        assert answer.status_code == 404 and "root:" not in answer.text


def test_a_video_comes_in_ranges_and_frames_are_pictures(serve, clip):
    client = serve()
    with open(clip, "rb") as file:
        data = file.read()
    whole = client.get("/video?run=demo&source=step:0&n=0")
    assert whole.content == data and whole.headers["content-type"] == "video/mp4"
    part = client.get("/video?run=demo&source=step:0&n=0", headers={"range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == data[10:20]
    early, late = (client.get(f"/frame?run=demo&source=eval:after&n=0&t={t}&h=72") for t in (1, 20))
    assert early.headers["content-type"] == "image/jpeg" and early.content[:2] == b"\xff\xd8"
    assert early.content != late.content


def test_assets_are_ours_and_load_nothing():
    found = assets()
    assert {"view.css", "view.js", "rollout.js"} <= set(found)
    for content, _ in found.values():
        text = content.decode()
        assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in text and "@import" not in text and "url(" not in text
        assert "eval(" not in text
