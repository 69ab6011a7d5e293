"""Standard output and error that are closed, full, or read by somebody who has gone away."""

import io
import os
import subprocess
import sys

import pytest

from quintain.bench import cli
from quintain.bench.api.shared import progress_bars, streams
from quintain.bench.api.shared.progress_bars import Bar


def start(redirections, *arguments):
    """Run the command line under a shell's redirections; return its status and what it said."""
    code = "from quintain.bench import cli; cli.main()"
    answer = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {redirections}', sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in answer.stderr
    assert "Exception ignored" not in answer.stderr
    return answer.returncode, answer.stdout, answer.stderr


@pytest.mark.parametrize("what", ["list losses", "--help"])
def test_a_full_standard_output_is_one_line(what):
    status, _, said = start(">/dev/full", *what.split())
    assert status == 2
    assert said.startswith("quintain: error: ")
    assert said.endswith("No space left on device\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_end_nothing(closed):
    assert start(closed, "list", "losses") == (0, "", "")


def test_a_file_that_is_opened_does_not_become_a_stream_that_was_closed(tmp_path):
    code = (
        "import os; from quintain.bench.api.shared import streams\n"
        "streams.open_standard_streams()\n"
        "file = open('mine', 'w'); os.write(1, b'not into the file'); file.write('mine')"
    )
    command = f'exec {sys.executable} -c "{code}" >&-'
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_reader_that_has_gone_away_does_not_change_the_status():
    code = "from quintain.bench import cli; cli.main(['list'])"
    ours, theirs = os.pipe()
    os.close(ours)
    ending = subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    assert ending.returncode == 0


class Broken(io.StringIO):
    """A stream that fails, as a pipe without a reader does."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


class Watched(Broken):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [None, Watched()])
def test_a_run_goes_on_without_a_standard_error(stream, tmp_path, write_suite, monkeypatch):
    suite = write_suite(attacks='[[attacks]]\nname = "fgsm"\n')
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", str(suite), "--out", str(tmp_path / "out"), "--device", "cpu"])
    monkeypatch.undo()
    assert ending.value.code == 0
    assert (tmp_path / "out" / "leaderboard.csv").is_file()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", "nowhere.toml"])
    assert ending.value.code == 2


@pytest.mark.parametrize("stream", [None, Broken(), Watched(), "closed"])
def test_bars_and_lines_end_nothing(stream, monkeypatch):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Bar("work")
    for done in range(3):
        bar.update(done, 2)
        progress_bars.say("a line")
    bar.close()


def test_a_run_that_failed_says_so_though_nobody_reads(tmp_path, write_suite, monkeypatch):
    (tmp_path / "fails.py").write_text(
        "from dataclasses import dataclass\n"
        "from quintain.attacks.white_box.pgd import PGD\n"
        "from quintain.bench.api import registry\n"
        "@registry.attack('fails')\n"
        "@dataclass(frozen=True)\n"
        "class Fails(PGD):\n"
        "    def step(self, problem, state):\n"
        "        raise ValueError('on purpose')\n"
    )
    suite = write_suite(plugins='["fails.py"]', attacks='[[attacks]]\nname = "fails"\n')
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", str(suite), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert ending.value.code == 1


def test_a_character_that_a_stream_lacks_is_written_as_its_escape(monkeypatch):
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="ascii"))
    streams.show("größer \udcff")
    assert held.getvalue() == b"gr\\xf6\\xdfer \\udcff\n"


def test_an_error_of_our_own_is_one_line_and_its_traceback_in_a_file(
    quintain, monkeypatch, tmp_path
):
    def bug(*_):
        raise KeyError("a\nb")

    monkeypatch.setattr(streams, "show", bug)
    monkeypatch.setattr(cli, "show", bug)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = quintain("list", "losses")
    assert answer.code == 70
    assert "unexpected KeyError: 'a\\nb'" in answer.error
    (file,) = tmp_path.iterdir()
    assert str(file) in answer.error
    assert "Traceback" in file.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    answer = quintain("list", "losses")
    assert answer.code == 70
    assert "could not be written" in answer.error


def test_a_plugin_that_ends_the_program_is_one_line(quintain, monkeypatch):
    def leave(*_):
        raise SystemExit(0)

    monkeypatch.setattr(cli, "show", leave)
    answer = quintain("list", "losses")
    assert answer.code == 2
    assert "ended the program" in answer.error
