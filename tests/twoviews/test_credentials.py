"""Credentials: precedence of arguments, environment and file; a stored key is sent to its own URL only."""

import json

import pytest
from typer.testing import CliRunner

from tests.twoviews.scripted import Response
from twoviews import Client, NoCredentials
from twoviews.cli.main import app
from twoviews.credentials import Credentials, find


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in ("TWOVIEWS_URL", "TWOVIEWS_KEY", "TWOVIEWS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def store(folder, url="http://stored", key="tv_stored"):
    folder.mkdir(exist_ok=True)
    (folder / "credentials.json").write_text(json.dumps({"url": url, "key": key}))


def test_arguments_come_before_the_environment_and_that_before_the_default_folder(monkeypatch, tmp_path):
    store(tmp_path / "twoviews-data")
    assert find() == Credentials("http://stored", "tv_stored")
    monkeypatch.setenv("TWOVIEWS_URL", "http://env/")
    monkeypatch.setenv("TWOVIEWS_KEY", "tv_env")
    assert find() == Credentials("http://env", "tv_env")
    assert find("http://given", "tv_given") == Credentials("http://given", "tv_given")


def test_the_folder_is_an_argument_or_a_variable(monkeypatch, tmp_path):
    store(tmp_path / "mine", key="tv_mine")
    assert find(data_dir=tmp_path / "mine").key == "tv_mine"
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(tmp_path / "mine"))
    assert find().key == "tv_mine"


@pytest.mark.parametrize("names", [("URL", "KEY"), ("URL",), ("KEY",), ("URL", "KEY", "DATA_DIR")])
def test_a_given_folder_comes_before_the_environment(monkeypatch, tmp_path, names):
    store(tmp_path / "env", "http://env", "tv_env")
    exported = {"URL": "http://env", "KEY": "tv_env", "DATA_DIR": str(tmp_path / "env")}
    for name in names:
        monkeypatch.setenv(f"TWOVIEWS_{name}", exported[name])
    store(tmp_path / "mine", "http://mine", "tv_mine")
    assert find(data_dir=tmp_path / "mine") == Credentials("http://mine", "tv_mine")
    assert find("http://mine", data_dir=tmp_path / "mine") == Credentials("http://mine", "tv_mine")
    assert find(key="tv_given", data_dir=tmp_path / "mine") == Credentials("http://mine", "tv_given")
    with pytest.raises(NoCredentials, match="is for http://mine, not for http://env"):
        find("http://env", data_dir=tmp_path / "mine")


def test_a_given_folder_without_credentials_raises(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOVIEWS_URL", "http://env")
    monkeypatch.setenv("TWOVIEWS_KEY", "tv_env")
    with pytest.raises(NoCredentials, match=r"mine/credentials\.json does not exist: start a service"):
        find(data_dir=tmp_path / "mine")
    assert find("http://given", "tv_given", tmp_path / "mine") == Credentials("http://given", "tv_given")


def test_client_and_command_call_the_service_of_the_given_folder(monkeypatch, tmp_path, script):
    monkeypatch.setenv("TWOVIEWS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TWOVIEWS_KEY", "tv_env")
    store(tmp_path / "mine", script.url, "tv_mine")
    script.responses = [Response(body={"data": [], "has_more": False, "next": None}) for _ in range(2)]
    with Client(data_dir=tmp_path / "mine") as client:
        assert list(client.jobs.list()) == []
    assert CliRunner().invoke(app, ["--data", str(tmp_path / "mine"), "jobs", "list"]).exit_code == 0
    assert [request.headers["Authorization"] for request in script.requests] == ["Bearer tv_mine"] * 2


def test_a_stored_key_is_sent_to_its_own_url_only(tmp_path):
    store(tmp_path / "twoviews-data")
    with pytest.raises(NoCredentials, match="is for http://stored, not for http://elsewhere"):
        find("http://elsewhere")
    assert find("http://stored/").key == "tv_stored"


def test_without_credentials_the_message_names_the_options():
    with pytest.raises(NoCredentials, match="twoviews up"):
        find()
    with pytest.raises(NoCredentials, match="TWOVIEWS_KEY"):
        find("http://somewhere")


def test_a_damaged_file_raises(tmp_path):
    (tmp_path / "credentials.json").write_text("[]")
    with pytest.raises(NoCredentials, match="cannot be read"):
        find(data_dir=tmp_path)


def test_the_key_is_not_in_the_repr():
    assert "tv_secret" not in repr(Credentials("http://x", "tv_secret"))
