"""The command-line interface: its commands, JSON output, error messages and exit codes."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

import api.app
import twoviews
from service.db.models import Tenant
from service.db.session import Database
from service.settings import Settings
from tests import servers
from tests.service import given
from tests.twoviews.scripted import Response
from twoviews.cli import run_config
from twoviews.cli.main import app

ROOT = Path(__file__).parents[3]


def test_an_upload_is_added_listed_and_shown(run, tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"x")
    added = json.loads(run("datasets", "add", str(tmp_path / "photos.zip"), "--no-wait", "--json").stdout)
    assert added["status"] == "validating"
    assert added["id"] in run("datasets", "list").stdout
    assert json.loads(run("datasets", "list", "--json").stdout)[0]["id"] == added["id"]
    assert "photos.zip" in run("datasets", "show", added["id"]).stdout


def test_reading_options_are_sent_and_an_invalid_one_is_refused_by_name(run, tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"x")
    words = ("datasets", "add", str(tmp_path / "photos.zip"), "--no-wait", "--json")
    options = ("--strict", "--layout", "flat", "--channels", "5", "--low", "0", "--high", "1")
    added = json.loads(run(*words, *options).stdout)
    assert added["reading"] == {"strict": True, "layout": "flat", "channels": 5, "low": 0.0, "high": 1.0}
    assert json.loads(run(*words).stdout)["reading"] == {}
    assert "layout" in run(*words[:-1], "--layout", "tree").stderr


def test_warnings_of_the_report_are_shown(run_scripted, script):
    warning = {"code": "unread_document", "detail": "Not read [bold].", "count": 1200, "examples": ["a.csv", "b.csv"]}
    report = {"classes": ["cat"], "splits": {}, "warnings": [warning]}
    script.responses = [Response(body={"id": "ds_1", "name": "x", "status": "ready", "report": report})]
    assert "! Not read [bold]. (1,200) a.csv, b.csv" in run_scripted("datasets", "show", "ds_1").stdout


def test_empty_lists_print_a_message(run):
    assert "No datasets yet" in run("datasets", "list").stdout
    assert "No jobs yet" in run("jobs", "list").stdout
    assert "No models yet" in run("models", "list").stdout


def test_weights_are_imported_with_the_given_fields(run, tmp_path):
    (tmp_path / "r18.pt").write_bytes(b"x")
    words = ("models", "import", str(tmp_path / "r18.pt"), "--no-wait", "--json")
    job = json.loads(run(*words, "--set", "image_size=96", "--set", "stem=cifar").stdout)
    assert (job["kind"], job["name"], job["status"]) == ("import", "r18.pt", "queued")
    assert (job["config"]["image_size"], job["config"]["stem"]) == (96, "cifar")
    refused = run(*words, "--set", "image_size=7")
    assert (refused.exit_code, "image_size" in refused.stderr) == (2, True)


def test_usage_shows_what_is_used_and_allowed(run):
    found = json.loads(run("usage", "--json").stdout)
    assert found["bytes"]["used"] == found["jobs"]["queued"]["used"] == 0
    shown = run("usage").stdout
    assert "bytes stored" in shown
    assert "no limit" in shown


def test_a_key_is_made_listed_and_revoked(run):
    made = json.loads(run("keys", "create", "laptop", "--json").stdout)
    assert made["key"].startswith("tv_")
    assert made["id"] in run("keys", "list").stdout
    assert run("keys", "revoke", made["id"]).exit_code == 0


def test_a_key_is_made_with_scopes_and_an_expiry(run):
    words = ("--scope", "read", "--scope", "embed", "--json")
    made = json.loads(run("keys", "create", "laptop", "--expires", "2999-01-31", *words).stdout)
    assert (made["scopes"], made["expires_at"]) == (["read", "embed"], "2999-01-31T00:00:00.000Z")
    days = json.loads(run("keys", "create", "phone", "--expires", "30d", *words).stdout)
    assert made["expires_at"] > days["expires_at"] > days["created_at"]
    assert {made["id"], "embed", "2999-01-31"} <= set(run("keys", "list").stdout.split())
    refused = run("keys", "create", "x", "--expires", "soon")
    assert (refused.exit_code, "soon is no number of days" in " ".join(refused.stderr.split())) == (2, True)
    unknown = run("keys", "create", "x", "--scope", "write")
    assert (unknown.exit_code, "/scopes/0" in unknown.stderr) == (2, True)


def test_the_audit_trail_is_listed_and_filtered(run):
    made = json.loads(run("keys", "create", "laptop", "--json").stdout)
    run("keys", "revoke", made["id"])
    entries = json.loads(run("audit", "--json").stdout)
    assert [(entry["action"], entry["target"]) for entry in entries] == [
        ("key.revoke", made["id"]),
        ("key.create", made["id"]),
    ]
    assert json.loads(run("audit", "--limit", "1", "--json").stdout) == entries[:1]
    assert json.loads(run("audit", "--action", "key.create", "--since", "1d", "--json").stdout) == entries[1:]
    assert json.loads(run("audit", "--by", entries[0]["key"], "--json").stdout) == entries
    assert "key.revoke" in run("audit").stdout
    assert "No entries." in run("audit", "--since", "2999-01-01").stdout


def test_a_dataset_is_embedded_with_the_given_options(run_scripted, script):
    script.responses = [Response(202, body={"id": "job_2", "kind": "embed_dataset", "status": "queued"})]
    options = ("--split", "train", "--split", "test", "--dtype", "float16", "--normalize", "--workers", "4")
    assert run_scripted("embed-dataset", "job_1", "ds_1", *options).exit_code == 0
    asked = json.loads(script.requests[0].body)
    assert (asked["kind"], asked["model"], asked["dataset"]) == ("embed_dataset", "job_1", "ds_1")
    assert asked["config"] == {
        "layer": "backbone",
        "dtype": "float16",
        "normalize": True,
        "workers": 4,
        "splits": ["train", "test"],
    }


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("jobs", "show", "job_missing"), 3, "no such job"),
        (("datasets", "add", "nothing.zip"), 3, "no file or folder"),
        (("models", "import", "nothing.pth"), 3, "There is no file nothing.pth."),
        (("models", "import", "/"), 2, "/ is a folder"),
        (("models", "download", "mdl_missing", "nowhere/"), 3, "no such model"),
        (("embed", "mdl_x", "nothing.png"), 3, "There is no file nothing.png."),
        (("jobs", "submit", "pretrain", "ds_x", "--config", "nothing.json"), 3, "nothing.json: No such file"),
        (("jobs", "submit", "pretrain", "ds_x", "--set", "nonsense"), 2, "path=value"),
        (("jobs", "submit", "pretrain", "ds_x", "--recipe", "none-such"), 2, "simclr-digits"),
        (("jobs", "submit", "pretrain", "ds_x", "--config", "{broken"), 2, "not JSON"),
        (("jobs", "frobnicate"), 2, "No such command"),
    ],
)
def test_an_error_is_a_sentence_with_an_exit_code(run, words, code, sentence):
    done = run(*words)
    assert done.exit_code == code
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.output


def test_a_wrong_key_and_an_absent_service_exit_with_4(credentials):
    wrong = CliRunner().invoke(app, ["--url", credentials.url, "--key", "tv_wrong", "jobs", "list"])
    assert (wrong.exit_code, "unknown or revoked" in wrong.stderr) == (4, True)
    with servers.dead_port() as port:
        absent = CliRunner().invoke(app, ["--url", f"http://127.0.0.1:{port}", "--key", "tv_any", "jobs", "list"])
    assert (absent.exit_code, f":{port} does not answer" in " ".join(absent.stderr.split())) == (4, True)


def test_without_a_service_the_message_names_twoviews_up(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["jobs", "list"])
    assert done.exit_code == 4
    assert "twoviews up" in done.stderr


def test_each_fault_of_a_rejected_config_is_shown_with_its_pointer(run_scripted, script):
    fault = {"pointer": "/config/epochz", "code": "extra_forbidden", "detail": "did you mean `epochs`?"}
    problem = {"code": "invalid_config", "detail": "The config is not one that can run.", "errors": [fault]}
    script.responses = [Response(422, problem)]
    done = run_scripted("jobs", "submit", "pretrain", "ds_1", "--set", "epochz=1")
    assert done.exit_code == 2
    assert "/config/epochz" in done.stderr
    assert "did you mean `epochs`?" in done.stderr


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watch_exits_by_the_status_of_the_job(run_scripted, script, status, code):
    job = {"id": "job_1", "kind": "pretrain", "status": status, "error": {"detail": "The loss is not a number."}}
    metrics = {"series": [{"name": "train/loss", "step": [1], "epoch": [1], "time": [0], "value": [0.5]}], "last": 1}
    script.responses = [Response(body=job), Response(body=job), Response(body=metrics)]
    done = run_scripted("jobs", "watch", "job_1", "--json")
    assert done.exit_code == code
    update = json.loads(done.stdout)
    assert (update["job"]["status"], update["metrics"]["last"]) == (status, 1)


def test_jobs_are_steered_by_command(run, tmp_path):
    database = Database(Settings(data_dir=tmp_path, database_url="").database)
    with database.reading() as session:
        tenant = session.scalars(select(Tenant.id).where(Tenant.name == "acme")).one()
    dataset = given.create_ready_dataset(database, tenant)
    database.close()
    config = ("--config", json.dumps(given.PRETRAIN))
    job = json.loads(run("jobs", "submit", "pretrain", dataset, *config, "--max-runtime", "60", "--json").stdout)
    assert job["max_runtime"] == 60
    for verb, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        assert json.loads(run("jobs", verb, job["id"], "--json").stdout)["status"] == status
    changed = json.loads(run("jobs", "change", job["id"], "--name", "first", "--priority", "7", "--json").stdout)
    assert (changed["name"], changed["priority"]) == ("first", 7)
    clone = json.loads(run("jobs", "clone", job["id"], "--set", "seed=5", "--name", "second", "--json").stdout)
    assert clone["config"] == job["config"] | {"seed": 5}
    assert (clone["name"], clone["priority"]) == ("second", 7)
    assert "position in the queue" in run("jobs", "show", clone["id"]).stdout


def test_the_events_of_a_job_are_printed_and_followed(run_scripted, script):
    event = {
        "seq": 1,
        "time": "2026-11-28T09:00:00.000Z",
        "level": "warning",
        "code": "collapse",
        "message": "Std [0].",
    }
    script.responses = [Response(body={"data": [event], "has_more": False})]
    assert (
        run_scripted("jobs", "events", "job_1").stdout == "2026-11-28T09:00:00  warning  collapse          Std [0].\n"
    )
    stream = f"event: event\nid: 1\ndata: {json.dumps(event)}\n\nevent: done\nid: 1\ndata: {{}}\n\n".encode()
    script.responses = [Response(200, stream, {"Content-Type": "text/event-stream"})]
    assert json.loads(run_scripted("jobs", "events", "job_1", "--follow", "--json").stdout) == event
    assert script.requests[-1].path == "/jobs/job_1/events/stream"


def test_the_artifacts_of_a_job_are_listed_and_downloaded(run_scripted, script, tmp_path):
    data = b"a picture"
    item = {"name": "views.png", "media_type": "image/png", "size_bytes": len(data)}
    item |= {"sha256": hashlib.sha256(data).hexdigest()}
    listed = Response(body={"data": [item], "has_more": False, "next": None})
    script.responses = [listed]
    assert "views.png" in run_scripted("jobs", "artifacts", "job_1").stdout
    script.responses = [listed]
    assert json.loads(run_scripted("jobs", "artifacts", "job_1", "--json").stdout) == [item]
    script.responses = [listed, Response(body=data)]
    fetched = json.loads(run_scripted("jobs", "artifacts", "job_1", "--out", str(tmp_path), "--json").stdout)
    assert fetched == [str(tmp_path / "views.png")]
    assert (tmp_path / "views.png").read_bytes() == data
    script.responses = [Response(body={"data": [], "has_more": False, "next": None})]
    assert "has no artifacts" in run_scripted("jobs", "artifacts", "job_1").stdout


def test_a_download_creates_the_folders_that_it_names(run_scripted, script, tmp_path):
    weights = b"weights"
    model = {"id": "mdl_1", "sha256": hashlib.sha256(weights).hexdigest()}
    for target, name in (("new/folder/", "new/folder/mdl_1.weights.safetensors"), ("other/w.pt", "other/w.pt")):
        script.responses = [Response(body=model), Response(body=weights)]
        done = run_scripted("models", "download", "job_1", f"{tmp_path}/{target}", "--json")
        assert json.loads(done.stdout)["path"] == str(tmp_path / name)
        assert (tmp_path / name).read_bytes() == weights


def test_the_images_of_a_folder_are_embedded_in_order(run_scripted, script, tmp_path):
    for name in ("b.png", "a/c.JPG", "a/notes.txt", ".hidden/d.png", "alone"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    rows = [{"index": index, "embedding": "AACAPw=="} for index in range(3)]
    script.responses = [Response(body={"data": rows})]
    done = run_scripted("embed", "mdl_1", str(tmp_path), str(tmp_path / "alone"), "--json")
    expected = [{"image": str(tmp_path / name), "embedding": [1.0]} for name in ("a/c.JPG", "b.png", "alone")]
    assert json.loads(done.stdout) == expected
    (tmp_path / "empty").mkdir()
    empty = run_scripted("embed", "mdl_1", str(tmp_path / "empty"))
    assert (empty.exit_code, "There are no images in" in empty.stderr) == (3, True)


def test_code_in_a_summary_is_shown_in_lines_that_can_be_copied(run_scripted, script):
    code = {"torchvision": f"import torch\nnetwork = load('{'x' * 100}')  # [dim]\n", "timm": "import timm\n"}
    job = {"id": "job_1", "kind": "export", "status": "succeeded", "summary": {"images": 4, "load": code}}
    script.responses = [Response(body=job)]
    shown = run_scripted("jobs", "show", "job_1").stdout
    fields, *_ = shown.split("\n\n")
    assert "images" in fields
    assert "import" not in fields
    for title, text in code.items():
        assert f"\nload {title}\n{text}" in shown


def test_submit_merges_recipe_config_and_settings(run_scripted, script):
    recipes = [{"name": "small", "config": {"method": {"name": "simclr", "temperature": 0.5}, "epochs": 10}}]
    script.responses = [Response(body={"data": recipes, "has_more": False, "next": None})]
    script.responses += [Response(202, {"id": "job_1", "status": "queued"})]
    changes = ["--set", "method.temperature=0.1", "--set", "device=cpu", "--priority", "3"]
    done = run_scripted("jobs", "submit", "pretrain", "ds_1", "--recipe", "small", "--config", '{"seed": 7}', *changes)
    assert done.exit_code == 0
    body = json.loads(script.requests[-1].body)
    method = {"name": "simclr", "temperature": 0.1}
    assert body["config"] == {"method": method, "epochs": 10, "seed": 7, "device": "cpu"}
    assert body["priority"] == 3


def test_a_recipe_is_not_modified():
    recipes = [{"name": "small", "config": {"method": {"name": "simclr"}}}]
    run_config.build(None, "small", ["method.temperature=0.1"], lambda: recipes)
    assert recipes == [{"name": "small", "config": {"method": {"name": "simclr"}}}]


def test_a_setting_below_a_scalar_is_rejected():
    with pytest.raises(ValueError, match="epochs is not an object"):
        run_config.build('{"epochs": 3}', None, ["epochs.much=1"], lambda: [])


def test_help_names_every_command_and_the_exit_codes():
    text = CliRunner().invoke(app, ["--help"]).stdout
    for word in ("up", "demo", "datasets", "jobs", "metrics", "embed", "models", "keys", "Exit codes"):
        assert word in text


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CliRunner().invoke(app, ["--version"]).stdout == f"twoviews {project['version']}\n"
    assert twoviews.__version__ == project["version"] == api.app.create(Settings(data_dir=Path("unused"))).version


def test_a_shell_completes_commands():
    words = {"_TWOVIEWS_COMPLETE": "complete_bash", "COMP_WORDS": "twoviews jobs su", "COMP_CWORD": "2"}
    done = CliRunner().invoke(app, [], prog_name="twoviews", env=words)
    assert done.stdout.split() == ["submit"]


def test_a_closed_stdout_exits_as_by_sigpipe_without_a_message(credentials):
    reading, writing = os.pipe()
    os.close(reading)
    words = ["--url", credentials.url, "--key", credentials.key, "jobs", "list", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "twoviews", *words], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_up_reports_an_invalid_data_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    done = CliRunner().invoke(app, ["up", "--data", str(tmp_path / "file")])
    assert done.exit_code == 1
    assert "file cannot be the data folder: File exists." in done.stderr.replace("\n", "")


@pytest.mark.parametrize(
    "words", [("--data", "{}", "up"), ("up", "--data", "{}"), ("--data", "elsewhere", "up", "--data", "{}")]
)
def test_up_serves_the_folder_that_either_data_option_names(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(tmp_path / "not-this"))
    (tmp_path / "mine").mkdir()
    with (tmp_path / "mine" / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another `up` does
        done = CliRunner().invoke(app, [word.format(tmp_path / "mine") for word in (*words, "--port", "0")])
    assert done.exit_code == 1
    assert f"serves {tmp_path / 'mine'}" in done.stderr.replace("\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
