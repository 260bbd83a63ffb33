"""Credentials: what was given comes first, and a key goes to no other address than its own."""

import json

import pytest
from typer.testing import CliRunner

from tests.twoviews.scripted import Answer
from twoviews import Client, NoCredentials
from twoviews.cli.main import app
from twoviews.credentials import Credentials, find


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch, tmp_path):
    for name in ("TWOVIEWS_URL", "TWOVIEWS_KEY", "TWOVIEWS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def keep(folder, url="http://kept", key="tv_kept"):
    folder.mkdir(exist_ok=True)
    (folder / "credentials.json").write_text(json.dumps({"url": url, "key": key}))


def test_what_was_given_comes_before_the_environment_and_that_before_the_folder(monkeypatch, tmp_path):
    keep(tmp_path / "twoviews-data")
    assert find() == Credentials("http://kept", "tv_kept")
    monkeypatch.setenv("TWOVIEWS_URL", "http://env/")
    monkeypatch.setenv("TWOVIEWS_KEY", "tv_env")
    assert find() == Credentials("http://env", "tv_env")
    assert find("http://given", "tv_given") == Credentials("http://given", "tv_given")


def test_the_folder_may_be_named(monkeypatch, tmp_path):
    keep(tmp_path / "mine", key="tv_mine")
    assert find(data_dir=tmp_path / "mine").key == "tv_mine"
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(tmp_path / "mine"))
    assert find().key == "tv_mine"


@pytest.mark.parametrize("names", [("URL", "KEY"), ("URL",), ("KEY",), ("URL", "KEY", "DATA_DIR")])
def test_a_folder_that_was_given_comes_before_the_environment(monkeypatch, tmp_path, names):
    keep(tmp_path / "env", "http://env", "tv_env")
    exported = {"URL": "http://env", "KEY": "tv_env", "DATA_DIR": str(tmp_path / "env")}
    for name in names:
        monkeypatch.setenv(f"TWOVIEWS_{name}", exported[name])
    keep(tmp_path / "mine", "http://mine", "tv_mine")
    assert find(data_dir=tmp_path / "mine") == Credentials("http://mine", "tv_mine")
    assert find("http://mine", data_dir=tmp_path / "mine") == Credentials("http://mine", "tv_mine")
    assert find(key="tv_given", data_dir=tmp_path / "mine") == Credentials("http://mine", "tv_given")
    with pytest.raises(NoCredentials, match="is for http://mine, not for http://env"):
        find("http://env", data_dir=tmp_path / "mine")


def test_a_given_folder_without_credentials_is_a_sentence_whatever_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOVIEWS_URL", "http://env")
    monkeypatch.setenv("TWOVIEWS_KEY", "tv_env")
    with pytest.raises(NoCredentials, match=r"mine/credentials\.json is not there: start a service"):
        find(data_dir=tmp_path / "mine")
    assert find("http://given", "tv_given", tmp_path / "mine") == Credentials("http://given", "tv_given")


def test_the_client_and_the_command_ask_the_service_of_the_folder_that_was_given(monkeypatch, tmp_path, script):
    monkeypatch.setenv("TWOVIEWS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TWOVIEWS_KEY", "tv_env")
    keep(tmp_path / "mine", script.url, "tv_mine")
    script.answers = [Answer(body={"data": [], "has_more": False, "next": None}) for _ in range(2)]
    with Client(data_dir=tmp_path / "mine") as client:
        assert list(client.jobs.list()) == []
    assert CliRunner().invoke(app, ["--data", str(tmp_path / "mine"), "jobs", "list"]).exit_code == 0
    assert [asked.headers["Authorization"] for asked in script.asked] == ["Bearer tv_mine"] * 2


def test_a_kept_key_is_sent_to_no_other_address(tmp_path):
    keep(tmp_path / "twoviews-data")
    with pytest.raises(NoCredentials, match="is for http://kept, not for http://elsewhere"):
        find("http://elsewhere")
    assert find("http://kept/").key == "tv_kept"


def test_without_anything_the_sentence_says_what_to_do():
    with pytest.raises(NoCredentials, match="twoviews up"):
        find()
    with pytest.raises(NoCredentials, match="TWOVIEWS_KEY"):
        find("http://somewhere")


def test_a_broken_file_is_a_sentence(tmp_path):
    (tmp_path / "credentials.json").write_text("[]")
    with pytest.raises(NoCredentials, match="cannot be read"):
        find(data_dir=tmp_path)


def test_the_key_is_not_shown_where_values_are_printed():
    assert "tv_secret" not in repr(Credentials("http://x", "tv_secret"))
