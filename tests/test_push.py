"""`cwjax push` with the hub's own client, against a server here that speaks as the hub does."""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, repocard_data

import cwjax
from cwjax.cli import main
from cwjax.errors import CwjaxError
from cwjax.weights.model_directory import record_facts

EARLIER = Path(__file__).parent / "data" / "model-0.1.0"
SCORES = {
    "word error rate, test split": {"right": 0.0613, "none": 0.25},
    "homophones spelled as meant, test split": {"right": 0.97},
}


class Hub(ThreadingHTTPServer):
    """Remembers what was asked and committed."""

    status = 200
    private = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.made: list[dict] = []
        self.committed: dict[str, bytes] = {}
        self.tokens: set[str] = set()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._say({"id": "ada/engine", "private": self.server.private, "tags": [], "siblings": []})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(content))
            self._say({"url": f"{constants.ENDPOINT}/ada/engine"}, self.server.status)
        elif self.path == "/api/validate-yaml":
            unknown = "license: mine" in json.loads(content)["content"]
            errors = [{"message": '"license" must be one of those we know'}] if unknown else []
            self._say({"errors": errors, "warnings": []}, 400 if unknown else 200)
        elif self.path.endswith("/preupload/main"):
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for one in json.loads(content)["files"]]  # fmt: skip
            self._say({"files": files}, self.server.status)
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    self.server.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = {"commitUrl": f"{constants.ENDPOINT}/ada/engine/commit/1", "commitOid": "1"}
            self._say({"success": True, **commit})
        else:
            self._say({"error": self.path}, 404)

    def _say(self, answer: dict, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_here")
        yield server
        server.shutdown()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = Path(shutil.copytree(EARLIER, tmp_path / "model"))
    record_facts(directory, {"scores": SCORES, "corpus": "demo", "whisper": "openai/whisper-tiny"})
    (directory / ".cache").mkdir()
    (directory / ".cache" / "mine").touch()
    return directory


def test_a_loaded_model_arrives(hub: Hub, model: Path) -> None:
    assert cwjax.load(model).push_to_hub("ada/engine", license="mit").endswith("/ada/engine/commit/1")
    assert {"model.safetensors", "config.json"} <= hub.committed.keys()
    assert b"license: mit" in hub.committed["README.md"]
    with pytest.raises(CwjaxError, match="push: engine: name a repository as OWNER/NAME"):
        cwjax.load(model).push_to_hub("engine")


def test_a_model_and_its_scores_arrive(hub: Hub, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = (model / "README.md").read_text() + "\nMy own words.\n"
    (model / "README.md").write_text(edited)
    hub.private = True
    assert main(["push", str(model), "ada/engine", "--private", "--license", "apache-2.0"]) == 0
    assert capsys.readouterr().out.endswith("/ada/engine/commit/1\n")
    (made,) = hub.made
    assert (made["name"], made["organization"]) == ("engine", "ada")
    assert made.get("private") or made.get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_here"}
    here = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    del here[".cache/mine"]
    card = huggingface_hub.ModelCard(hub.committed["README.md"].decode())
    assert hub.committed == here | {"README.md": hub.committed["README.md"]}
    assert "My own words." in card.text
    assert (model / "README.md").read_text() == edited, "what is here stays as it is"
    data = card.data.to_dict()
    assert (data["license"], data["library_name"]) == ("apache-2.0", "cwjax")
    assert data["base_model"] == ["openai/whisper-tiny"]
    assert data["tags"] == ["whisper", "context"]
    name, results = repocard_data.model_index_to_eval_results(data["model-index"])
    assert name == "engine"
    assert [(one.metric_type, one.metric_name, one.metric_value, one.dataset_split) for one in results] == [
        ("wer", "word error rate, right context", 6.13, "test"),
        ("wer", "word error rate, none context", 25.0, "test"),
        ("accuracy", "homophones spelled as meant, right context", 97.0, "test"),
    ]


def test_a_dry_run_lists_and_asks_nobody(hub: Hub, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(model), "ada/engine", "--dry-run"]) == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert {"README.md", "config.json", "model.safetensors"} <= set(listed)
    assert not any(name.startswith(".") for name in listed)
    assert not hub.made


@pytest.mark.parametrize("status", [401, 403, 500])
def test_what_the_hub_refuses_is_a_line(
    hub: Hub, model: Path, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.status = status
    assert main(["push", str(model), "ada/engine"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert ("the hub refuses" if status == 500 else f"the token may not write to ada/engine ({status})") in error
    assert not hub.committed


def test_what_is_public_already_is_not_taken_for_private(
    hub: Hub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(model), "ada/engine", "--private"]) == 1
    assert "ada/engine is public already" in capsys.readouterr().err
    assert not hub.committed


def test_no_network_no_token_no_model_and_no_name_are_a_line_each(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: object) -> str:
        assert main(["push", *map(str, arguments)]) == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "name a repository as OWNER/NAME" in said(model, "engine")
    assert "is no name of a repository" in said(model, "ada/..")
    assert "holds no config.json" in said(tmp_path, "ada/engine")
    assert 'push: ada/engine: the hub refuses the card: "license" must be' in said(
        model, "ada/engine", "--license=mine"
    )
    hub.shutdown()
    hub.server_close()
    assert "the hub cannot be reached" in said(model, "ada/engine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the hub cannot be reached (HF_HUB_OFFLINE is set)" in said(model, "ada/engine")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "there is no token for the hub" in said(model, "ada/engine")
    (model / "README.md").write_text("---\na: [\n---\nwords\n")
    assert "README.md: its header between --- is no YAML" in said(model, "ada/engine")
