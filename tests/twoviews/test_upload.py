"""Folders that are uploaded: what is packed of them."""

import tarfile

import pytest

from twoviews import upload
from twoviews.embeddings import find_images


def names(folder):
    with upload.pack(folder) as packed, tarfile.open(packed) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


@pytest.fixture
def folder(tmp_path):
    for name in ("set/cat/1.png", "set/cat/.hidden.png", "set/.cache/2.png", "store/dog/a:b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store" / "dog")
    return tmp_path / "set"


def test_linked_folders_are_followed_and_hidden_files_left_out(folder):
    assert names(folder) == {"cat/1.png": b"set/cat/1.png", "dog/a:b.png": b"store/dog/a:b.png"}
    assert find_images([folder]) == [folder / "cat" / "1.png", folder / "dog" / "a:b.png"]


def test_two_links_to_one_folder_are_two_folders(folder):
    (folder / "wolf").symlink_to(folder / "dog")
    assert sorted(names(folder)) == ["cat/1.png", "dog/a:b.png", "wolf/a:b.png"]


def test_a_link_to_a_folder_that_contains_it_ends(folder):
    (folder / "cat" / "loop").symlink_to(folder)
    (folder.parent / "store" / "dog" / "self").symlink_to(folder.parent / "store" / "dog")
    assert sorted(names(folder)) == ["cat/1.png", "dog/a:b.png"]


def test_a_link_to_nothing_is_named(folder):
    (folder / "cat" / "gone.png").symlink_to(folder / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png is a link to .*nothing\.png, which does not exist"):
        names(folder)
