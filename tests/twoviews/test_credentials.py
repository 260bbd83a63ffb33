"""Credentials: what was given comes first, and a key goes to no other address than its own."""

import json

import pytest

from twoviews import NoCredentials
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
