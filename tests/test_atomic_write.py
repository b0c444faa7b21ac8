"""A file takes its place when it is whole; after an error what was there before is still there, and nothing else."""

import pytest

from dendritic_bert.atomic_write import atomic_path


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
        assert unfinished.parent == tmp_path, "a rename within a folder is atomic"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "new")]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_older_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("older")

    def fail():
        with atomic_path(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "older")]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "folder"

    def write(name, error=None):
        with atomic_path(path) as unfinished:
            unfinished.mkdir()
            (unfinished / name).write_text("")
            if error is not None:
                raise error

    with pytest.raises(OSError, match="full"):
        write("half", OSError("full"))
    assert not list(tmp_path.iterdir())
    write("whole")
    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == ["folder", "folder/whole"]
