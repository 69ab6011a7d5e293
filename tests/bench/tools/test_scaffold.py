"""`quintain new`: what it writes works, and it never writes over anything."""

import csv

import pytest
import torch

from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter, DuplicatePlugin
from quintain.bench.cli import main
from quintain.bench.tools.conformance import check_plugin
from quintain.bench.tools.scaffold import TEMPLATES, write_plugin

SUITE = """
plugins = ["my_attack.py"]
dataset = "digits"
n_examples = 20
epsilons = [0.05, 0.1, 0.2]
models = [{ name = "resnet", depth = 8, width = 0.25 }]
defenses = [{ name = "none", epochs = 1 }]
attacks = [{ name = "fgsm" }, { name = "my-attack", steps = 3 }]
"""


def run(*arguments):
    with registry.temporary(), pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.fixture
def one_thread():
    """Training so small a network, two threads on busy cores mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_what_is_written_conforms(kind, tmp_path, capsys):
    assert run("new", kind, f"my-{kind}", "--out", str(tmp_path / "anything.py")) == 0
    assert "quintain check " in capsys.readouterr().out
    with registry.temporary():
        (report,) = check_plugin(str(tmp_path / "anything.py"))
    assert (report.plugin, report.kind) == (f"my-{kind}", kind)
    assert report.passed, report.text()


@pytest.mark.usefixtures("one_thread")
def test_it_gets_its_row_in_a_suite(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    assert run("new", "attack", "my-attack") == 0
    assert "quintain check my_attack.py" in capsys.readouterr().out
    (tmp_path / "suite.toml").write_text(SUITE)
    assert run("run", "suite.toml", "--out", "out", "--device", "cpu") == 0
    with open(tmp_path / "out" / "tradeoff.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["attack"] == "my-attack"]
    assert [row["epsilon"] for row in rows] == ["0.05", "0.1", "0.2"]
    with open(tmp_path / "out" / "leaderboard.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "my-attack" in row["attacks"]


@pytest.mark.parametrize(
    ("name", "file", "title", "kind"),
    [
        ("my-attack", "my_attack.py", "my-attack", "MyAttack"),
        ("my_attack", "my_attack.py", "my-attack", "MyAttack"),
        ("MyAttack", "my_attack.py", "my-attack", "MyAttack"),
        ("my-attack.py", "my_attack.py", "my-attack", "MyAttack"),
        ("swift", "swift.py", "swift", "SwiftAttack"),
        ("QRS", "qrs.py", "qrs", "QrsAttack"),
        ("class", "class_attack.py", "class", "ClassAttack"),
        ("None", "none.py", "none", "NoneAttack"),
    ],
)
def test_names_become_files_classes_and_plugins(tmp_path, name, file, title, kind):
    path = write_plugin("attack", name, tmp_path)
    assert path == tmp_path / file
    with registry.temporary():
        (plugin,) = registry.load_file(path)
        assert (plugin.name, plugin.load().__name__) == (title, kind)
        assert registry.build("attacks", {"name": title, "steps": 3}).steps == 3
        with pytest.raises(BadParameter, match="steps must be at least 1, not 0"):
            registry.build("attacks", {"name": title, "steps": 0})


@pytest.mark.parametrize("name", ["", "my attack", "1st", "a/b", "é", "--", "my.attack"])
def test_names_that_cannot_be_used(tmp_path, name):
    with pytest.raises(BadParameter, match="such as my-attack"):
        write_plugin("attack", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken(tmp_path):
    with pytest.raises(DuplicatePlugin, match="'pgd' already, in quintain"):
        write_plugin("attack", "pgd", tmp_path)


def test_an_existing_file_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("precious")
    assert run("new", "attack", "mine") == 2
    assert "mine.py exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("nowhere", "expected a .py file, or a folder that is there"),
        ("mine.txt", "expected a .py file, or a folder that is there"),
        ("nowhere/mine.py", "cannot be written: No such file"),
        ("file/mine.py", "cannot be written: Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written(tmp_path, out, said):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadParameter, match=said):
        write_plugin("attack", "mine", tmp_path / out)
