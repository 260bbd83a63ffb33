"""The lock of a data folder: one `up` at a time, and a sentence when it cannot be written."""

import os

import pytest

from twoviews.errors import TwoviewsError
from twoviews.local import up


def test_the_second_lock_names_the_process_of_the_first(tmp_path):
    (tmp_path / "up.lock").write_text("1234567890123\n")  # of an earlier version
    refusal = pytest.raises(TwoviewsError, match=rf"\(process {os.getpid()}\b.*serves {tmp_path}")
    with up._lock(tmp_path), refusal, up._lock(tmp_path):
        pass
    with up._lock(tmp_path):
        pass


def test_a_full_disk_is_a_sentence(tmp_path):
    (tmp_path / "up.lock").symlink_to("/dev/full")
    with pytest.raises(TwoviewsError, match="cannot be written: No space left on device"), up._lock(tmp_path):
        pass
