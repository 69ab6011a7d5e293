import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from quintain.bench.api.shared.file_checks import check_regular, check_writable
from quintain.bench.store.atomic import remove, write_atomically, write_text


def test_text_is_written_where_no_folder_was(tmp_path):
    write_text(tmp_path / "a" / "b" / "note.txt", "größer\n")
    assert (tmp_path / "a" / "b" / "note.txt").read_bytes() == "größer\n".encode()
    assert [one.name for one in (tmp_path / "a" / "b").iterdir()] == ["note.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def half(at):
        at.write_text("ne")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_system_call_that_fails_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_file_system_that_cannot_sync_a_folder_loses_nothing(tmp_path, monkeypatch, number, call):
    real = getattr(os, call)

    def refuse(what, *given):
        folder = what == tmp_path if call == "open" else stat.S_ISDIR(os.fstat(what).st_mode)
        if folder:
            raise OSError(number, os.strerror(number))
        return real(what, *given)

    monkeypatch.setattr(os, call, refuse)
    write_text(tmp_path / "x", "1")
    assert (tmp_path / "x").read_text() == "1"


def test_a_folder_that_a_broken_disk_cannot_sync_is_said(tmp_path, monkeypatch):
    real = os.fsync

    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_text(tmp_path / "x", "1")


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "nothing"])
def test_what_is_no_file_is_neither_opened_nor_written_over(tmp_path, what):
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    if what == "folder":
        path.mkdir()
    if what == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"it is a pipe|Is a directory|it is a device|No such file"):
        check_regular(path)
    if what != "nothing":
        with pytest.raises(OSError, match=r"it is a pipe|Is a directory|it is a device"):
            write_text(path, "1")
        with pytest.raises(OSError, match=r"it is a pipe|Is a directory|it is a device"):
            check_writable(path)
        remove(path / "below")
        assert [one.name for one in tmp_path.iterdir()] == [what]


def test_bytes_are_on_the_disk_before_they_get_their_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def watch(name, call):
        return lambda *given: (order.append(name), call(*given))[1]

    monkeypatch.setattr(os, "fsync", watch("fsync", fsync))
    monkeypatch.setattr(os, "replace", watch("replace", replace))
    write_text(tmp_path / "x", "1")
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder


_KILLED = """
import os, signal, sys
from pathlib import Path
from quintain.bench.store.atomic import write_atomically

def half(at):
    at.write_text("half of i")
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), half)
"""


@pytest.mark.parametrize("before", [None, "old"])
def test_a_process_killed_while_writing_leaves_the_old_file_or_none(tmp_path, before):
    path = tmp_path / "cell.parquet"
    if before is not None:
        path.write_text(before)
    ending = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert ending.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == before
    write_text(path, "whole")
    assert path.read_text() == "whole"
