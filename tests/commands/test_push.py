"""`paravt push`: what is in the folder, what the card claims, and when nothing is uploaded."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, constants
from support.evaluations import row
from support.tiny_runs import SHAPE

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.cli import main
from train.learner import checkpoint
from train.report.card import card, parameters, policy_in


@pytest.fixture
def run(tmp_path):
    """A run of two checkpoints, the first of which is the best."""
    folder = tmp_path / "runs" / "tiny"
    for step in (1, 2):
        model = folder / "checkpoints" / f"step-{step:06d}" / "model"
        build_mini(model, ["light"] * 4, SHAPE, seed=step)
        (model.parent / checkpoint.TENSORS).touch()
        (model.parent / checkpoint.STATE).write_text(json.dumps({"best": [1, 0.5]}))
    settings = {"env": {"tasks": "/data/films.jsonl"}, "agent": {"checkpoint": "org/Base-2B"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def model_of(run, step):
    return run / "checkpoints" / f"step-{step:06d}" / "model"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(HfApi, "upload_folder", lambda *a, **k: pytest.fail("uploaded"))


def test_without_a_repository_the_folder_is_written_and_nothing_is_sent(run, capsys, monkeypatch):
    monkeypatch.setattr(HfApi, "create_repo", lambda *a, **k: pytest.fail("asked the hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["push", str(run)]) == 0
    said = capsys.readouterr()
    assert "nothing was uploaded: give --repo-id OWNER/NAME" in said.out
    assert "names a path of this machine: env.tasks=/data/films.jsonl" in said.err
    there = Path("published/tiny")
    assert {path.name for path in there.iterdir()} >= {"README.md", "config.yaml", "config.json"}
    assert (there / "config.yaml").read_text() == (run / "config.yaml").read_text()
    best = (model_of(run, 1) / "model.safetensors").read_bytes()
    assert (there / "model.safetensors").read_bytes() == best
    VisionLanguageModel.load(there)


def test_the_card_says_what_is_known_and_no_more(run):
    text = card(policy_in(run), "tiny", "apache-2.0")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["base_model"] == "org/Base-2B"
    assert "qwen3_vl" in head["tags"] and "No evaluation of this policy" in text
    assert "license" not in yaml.safe_load(card(policy_in(run), "tiny").split("---\n")[1])
    vlm = VisionLanguageModel.load(model_of(run, 1))
    count = sum(p.numel() for p in set(vlm.model.parameters()))
    assert parameters(model_of(run, 1)) == count and f"| parameters | {count:,} |" in text


def evaluation(run, policy):
    """A report of three rows, two of them right, that says it measured a policy."""
    rows = [row(f"t{i}", score=float(i > 0), video=f"v{i}").as_json() for i in range(3)]
    settings = {"split": "test", "resamples": 50, "confidence": 0.95, "seed": 0}
    content = {"rows": rows, "settings": settings, "seconds": 1.0}
    (run / "after.json").write_text(json.dumps(content))
    (run / "after.yaml").write_text(yaml.safe_dump({"agent": {"checkpoint": str(policy)}}))


def test_numbers_are_told_of_this_policy_alone(run):
    evaluation(run, model_of(run, 2))
    assert policy_in(run).evaluation is None
    evaluation(run, model_of(run, 1))
    text = card(policy_in(run), "tiny")
    assert "Accuracy 66.7 % [" in text and "on 3 rollouts of the split `test`" in text


def test_a_shipped_checkpoint_keeps_its_own_card(tmp_path):
    assert main(["push", "paravt_mini", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "README.md").read_text().count("# ParaVT-Mini\n") == 1
    assert not (tmp_path / "out" / "sft.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere holds no policy"),
        (["paravt_mini", "--repo-id", "name"], "give OWNER/NAME"),
        (["paravt_mini", "--repo-id", "a b/c"], "--repo-id 'a b/c'"),
        (["paravt_mini", "--output", "full"], "full is not empty"),
        (["paravt_mini", "--repo-id", "me/mini"], "there is no token. Set HF_TOKEN"),
    ],
)
def test_what_cannot_be_is_one_line(words, message, capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").touch()
    assert main(["push", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


class Hub(BaseHTTPRequestHandler):
    """Answers every request with one status."""

    status, asked = 401, []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.path, json.loads(body or b"{}"), self.headers["Authorization"]))
        answer = json.dumps({"url": "http://127.0.0.1/me/mini"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that knows no token."""
    server = HTTPServer(("127.0.0.1", 0), type("Own", (Hub,), {"asked": []}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    yield server.RequestHandlerClass
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused_is_told_and_the_folder_stays(hub, status, capsys):
    hub.status = status
    assert main(["push", "paravt_mini", "--repo-id", "me/mini"]) == 2
    said = capsys.readouterr().err
    assert f"the hub refused the token for me/mini (status {status})" in said
    assert "hf_wrong" not in said and (Path("published/mini") / "README.md").is_file()
    assert hub.asked[0][2] == "Bearer hf_wrong"


def test_a_repository_is_private_unless_it_is_told_and_gets_the_whole_folder(
    hub, monkeypatch, capsys
):
    hub.status, sent = 200, []
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **given: sent.append(given))
    assert main(["push", "paravt_mini", "--repo-id", "me/mini"]) == 0
    words = ["push", "paravt_mini", "--repo-id", "me/mini", "--public", "--output", "again"]
    assert main(words) == 0
    assert [body["visibility"] for _, body, _ in hub.asked] == ["private", "public"]
    assert [str(one["folder_path"]) for one in sent] == ["published/mini", "again"]
    assert capsys.readouterr().out.count("uploaded to me/mini") == 2


def test_a_hub_that_is_away_or_switched_off_leaves_the_folder(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", "paravt_mini", "--repo-id", "me/mini"]) == 1
    assert "nothing was uploaded: the hub cannot be reached" in capsys.readouterr().err
    assert (Path("published/mini") / "model.safetensors").is_file()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = ["push", "paravt_mini", "--repo-id", "me/mini", "--output", "again"]
    assert main(words) == 1
    assert "switched off (HF_HUB_OFFLINE)" in capsys.readouterr().err
