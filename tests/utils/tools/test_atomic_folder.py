import shutil

import pytest

from tests.file_size_limit import file_size_limit
from utils.cli.errors import UserError
from utils.tools.atomic_folder import atomic_folder


def test_a_copy_that_does_not_fit_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(100))
    with (
        file_size_limit(10),
        pytest.raises(UserError, match=r"out\.tmp/b\.bin: File too large"),
        atomic_folder(tmp_path / "out") as folder,
    ):
        shutil.copy(tmp_path / "a.bin", folder / "b.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
