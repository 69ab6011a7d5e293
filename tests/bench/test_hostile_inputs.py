"""Inputs that mean harm or make no sense: one line on stderr each, no traceback, and no waiting.

A row is what a command is given and what its line says. What is hostile in checkpoints and in
images is in files of their own.
"""

import os
import signal
import stat
from contextlib import contextmanager

import pytest

SECONDS = 60  # far more than any of them takes, on a machine that is busy with other things
HUGE = "9" * 5000


@contextmanager
def within(seconds):
    """End what waits for ever."""

    def end(*_):
        pytest.fail(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def guard():
    with within(SECONDS):
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with things that are no files, and with files that cannot be read."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "latin.py").write_bytes(b"name = '\xff'\n")
    (tmp_path / "nul.py").write_bytes(b"x = '\0'\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    for split in ("train", "test"):
        for number in (0, 1):
            (tmp_path / "images" / split / f"class{number}").mkdir(parents=True)
        os.mkfifo(tmp_path / "images" / split / "class0" / "a.png")
        (tmp_path / "images" / split / "class1" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


def entry(kind, text):
    return f"[[{kind}]]\n{text}\n"


MODEL_FILE = 'name = "resnet"\ndepth = 8\nwidth = 0.25\ncheckpoint = '

# keys of a small suite and what the error says; None takes a key away
SUITES = {
    "epsilon of a billion digits": ({"epsilons": '["1e999999999"]'}, "is not a number such as"),
    "epsilon near zero": ({"epsilons": '["1e-999999999"]'}, "must be positive"),
    "epsilon, bare, of a billion digits": ({"epsilons": "[1e999999999]"}, "is not a number such"),
    "epsilon, 5,000 digits": ({"epsilons": f"[{HUGE}]"}, "a number has too many digits"),
    "epsilon, 5,000 digits as a text": ({"epsilons": f'["{HUGE}"]'}, "is not a number such as"),
    "epsilon, 5,000 digits over 3": ({"epsilons": f'["{HUGE}/3"]'}, "is not a number such as"),
    "epsilon, hexadecimal": ({"epsilons": f"[0x{'f' * 9000}]"}, "is not a number such as"),
    "epsilon over a power": ({"epsilons": '["1/1e999999999"]'}, "is not a number such as"),
    "epsilon, nothing": ({"epsilons": '[""]'}, "is not a number such as"),
    "epsilon, a table": ({"epsilons": "[{ a = 1 }]"}, "is not a number such as"),
    "seed of 5,000 digits": ({"seed": HUGE}, "a number has too many digits"),
    "seed, hexadecimal": ({"seed": f"0x{'f' * 9000}"}, "seed: input should be"),
    "examples without end": ({"n_examples": "9" * 30}, "n_examples = 9"),
    "lists 5,000 deep": ({"epsilons": "[" * 5000 + "]" * 5000}, "nested deeper than 32"),
    "tables 5,000 deep": ({"dataset": "{a=" * 5000 + "1" + "}" * 5000}, "nested deeper than 32"),
    "dotted keys 300 deep": ({"dataset" + ".a" * 300: "1", "dataset": None}, "than 32"),
    "lists 100 deep": ({"dataset": f'{{ name = "digits", size = {"[" * 100}{"]" * 100} }}'}, "32"),
    "a NUL in a path": ({"plugins": '["a\\u0000b.py"]'}, "holds a NUL character"),
    "a NUL in a checkpoint": ({"models": entry("models", MODEL_FILE + '"a\\u0000"')}, "a NUL char"),
    "a NUL in a root": ({"dataset": '{ name = "imagefolder", root = "\\u0000" }'}, "a NUL char"),
    "a NUL in a key": ({'"a\\u0000b"': "1"}, "holds a NUL character"),
    "a NUL as it is": ({"description": '"a\0b"'}, "not valid TOML"),
    "a key of a megabyte": ({"a" * 1_000_000: "1"}, "unknown key"),
    "a value of a megabyte": ({"norm": f'"{"L" * 1_000_000}"'}, "norm: input should be"),
    "a byte order mark within": ({"description": '"x"\n\ufeff'}, "not valid TOML"),
    "a carriage return in a label": (
        {"attacks": entry("attacks", 'name = "pgd"\nlabel = "a\\rb"')},
        r"the name 'a\rb' holds '\r'",
    ),
    "a line feed in a label": (
        {"attacks": entry("attacks", 'name = "pgd"\nlabel = "a\\nb"')},
        r"the name 'a\nb' holds '\n'",
    ),
    "an escape in a label": (
        {"models": entry("models", 'name = "resnet"\nlabel = "\\u001b[2J"')},
        r"the name '\x1b[2J' holds '\x1b'",
    ),
    "a line separator in a label": (
        {"defenses": entry("defenses", 'name = "none"\nlabel = "a\\u2028"')},
        r"holds '\u2028'",
    ),
    "a carriage return in a dataset's label": (
        {"dataset": '{ name = "digits", label = "a\\rb" }'},
        r"the name 'a\rb' holds",
    ),
    "a carriage return in what is named as a defense": (
        {"models": entry("models", 'name = "resnet"\ndefense = "a\\rb"')},
        r"the name 'a\rb' holds",
    ),
    "labels that differ in spaces": (
        {"attacks": entry("attacks", 'name = "pgd"') + entry("attacks", 'name = "pgd "')},
        "two attacks are called 'pgd'",
    ),
    "labels that differ in how an accent is encoded": (
        {
            "attacks": entry("attacks", 'name = "pgd"\nlabel = "\\u00e9"')
            + entry("attacks", 'name = "fgsm"\nlabel = "e\\u0301"')
        },
        "two attacks are called",
    ),
    "a label of spaces": (
        {"attacks": entry("attacks", 'name = "pgd"\nlabel = "   "')},
        "is empty: give it a label",
    ),
    "two pairs with one title": (
        {
            "models": entry("models", 'name = "resnet"\ndepth = 8\nlabel = "a"')
            + entry("models", 'name = "resnet"\ndepth = 14\nlabel = "a x b"'),
            "defenses": entry("defenses", 'name = "none"\nlabel = "b x c"')
            + entry("defenses", 'name = "none"\nlabel = "c"'),
        },
        "two pairs of model and defense are called 'a x b x c'",
    ),
    "a pipe as a plugin": ({"plugins": '["pipe"]'}, "it is a pipe, not a file"),
    "a device as a plugin": ({"plugins": '["/dev/zero"]'}, "it is a device, not a file"),
    "a link to a device as a plugin": ({"plugins": '["zero"]'}, "it is a device, not a file"),
    "a folder as a plugin": ({"plugins": '["folder"]'}, "Is a directory"),
    "a link to itself as a plugin": ({"plugins": '["loop"]'}, "symbolic link"),
    "a dangling link as a plugin": ({"plugins": '["dangling"]'}, "does not exist"),
    "a path of 5,000 characters": ({"plugins": f'["{"a" * 5000}"]'}, "File name too long"),
    "a plugin in Latin-1": ({"plugins": '["latin.py"]'}, "latin.py: SyntaxError"),
    "a plugin with a NUL": ({"plugins": '["nul.py"]'}, "nul.py: "),
    "a plugin that ends the program": ({"plugins": '["leaves.py"]'}, "leaves.py: SystemExit"),
    "a plugin too deep to parse": ({"plugins": '["deep.py"]'}, "deep.py: "),
    "a factory in a pipe": ({"models": entry("models", 'name = "pipe.py:make"')}, "does not exist"),
    "a pipe as a checkpoint": ({"models": entry("models", MODEL_FILE + '"pipe"')}, "pipe"),
    "a device as a checkpoint": ({"models": entry("models", MODEL_FILE + '"/dev/zero"')}, "/dev/z"),
    "a folder as a checkpoint": ({"models": entry("models", MODEL_FILE + '"folder"')}, "folder"),
    "a pipe among images": ({"dataset": '{ name = "imagefolder", root = "images" }'}, "image"),
    "a factory of no file": ({"attacks": entry("attacks", 'name = "no.py:f"')}, "does not exist"),
    "a name of dots": (
        {"attacks": entry("attacks", 'name = "../../etc/passwd"')},
        "unknown attack",
    ),
    "a name with a prefix alone": ({"attacks": entry("attacks", 'name = ":"')}, "unknown attack"),
    "a name that formats": ({"attacks": entry("attacks", 'name = "{0.__class__}%s%n"')}, "unknown"),
}


@pytest.mark.parametrize("what", SUITES)
def test_a_hostile_suite_is_refused_in_one_line(what, folder, write_suite, quintain):
    keys, says = SUITES[what]
    answer = quintain("run", write_suite(**keys), "--out", folder / "out", "--device", "cpu")
    assert answer.code == 2
    assert says in answer.error
    assert len(answer.error) < 3100
    assert not (folder / "out").exists()


COMMANDS = {
    "a pipe as a suite": (["run", "pipe"], "it is a pipe, not a file"),
    "a device as a suite": (["run", "/dev/zero"], "it is a device, not a file"),
    "a link to itself as a suite": (["run", "loop"], "no suite 'loop'"),
    "nothing as a suite": (["run", ""], "no suite ''"),
    "a suite's name of 5,000 characters": (["run", "a" * 5000], "no suite 'aaa"),
    "a suite's name that is no Unicode": (["run", "a\udcff"], "no suite 'a\\udcff'"),
    "a suite's name with a NUL": (["run", "a\0b"], "holds a NUL character"),
    "an escape in a suite's name": (["run", "\x1b[2J"], "no suite"),
    "a kind that is no Unicode": (["list", "\udc80"], "no kind '\\udc80'"),
    "a pipe as a plugin to check": (["check", "pipe"], ""),
    "a folder as a plugin to check": (["check", "folder"], ""),
    "a plugin to check that ends the program": (["check", "leaves.py"], "SystemExit"),
    "a folder as a plugin": (["train", "--model", "x", "--plugin", "folder"], "Is a directory"),
    "a device to write into": (
        ["leaderboard", "no", "--output", "/dev/full"],
        "no is not a run directory",
    ),
    "a setting with a NUL": (
        ["train", "--model", "resnet", "--dataset", "imagefolder", "--set",
         'dataset.root="\\u0000"'],
        "",
    ),
    "a setting 5,000 deep": (
        ["train", "--model", "resnet", "--set", "model.depth=" + "[" * 5000 + "]" * 5000],
        "is not int",
    ),
    "a setting of 5,000 digits": (
        ["train", "--model", "resnet", "--set", f"model.depth={HUGE}"],
        "is not int",
    ),
    "a radius of a billion digits": (
        ["train", "--model", "resnet", "--epsilon", "1e999999999"],
        "is not a number such as",
    ),
    "a seed of 5,000 digits": (["run", "quickstart", "--seed", HUGE], "'--seed'"),
    "a name that leads elsewhere": (["new", "attack", "../../x"], "cannot be an attack's name"),
    "a name of nothing": (["new", "attack", ""], "cannot be an attack's name"),
    "a folder of runs in a pipe": (["leaderboard", "pipe"], "pipe"),
}  # fmt: skip


@pytest.mark.parametrize("what", COMMANDS)
def test_a_hostile_command_is_refused_in_one_line(what, folder, quintain):
    arguments, says = COMMANDS[what]
    answer = quintain(*arguments)
    assert answer.code == 2
    assert says in answer.error
    assert "\x1b" not in answer.error or "escape" in what  # inert text is another test's


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "", ".", "..", "...", "a/../..", "a\\..\\x"])
def test_the_name_of_a_suite_stays_within_runs(name, folder, write_suite, quintain):
    suite = write_suite(name="s.toml", **{"name ": f"'{name}'"})
    assert quintain("run", suite, "--device", "cpu").code == 0
    (made,) = (folder / "runs").iterdir()
    assert made.is_dir()
    assert (made / "leaderboard.csv").is_file()
    assert not (folder.parent / "x").exists()


MANIFESTS = {
    "nothing": "",
    "half of it": '{"cells": [',
    "lists 5,000 deep": "[" * 5000 + "]" * 5000,
    "a number of 5,000 digits": f'{{"cells": [], "suite": {HUGE}}}',
    "another kind of file": "[1, 2]",
    "cells that are none": '{"cells": [1, "a", null, {}]}',
    "a cell whose file leads elsewhere": '{"cells": [{"status": "done", "file": "/dev/zero"}]}',
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_damaged_manifest_is_refused_with_a_way_to_go_on(what, folder, quintain):
    (folder / "run").mkdir()
    (folder / "run" / "manifest.json").write_text(MANIFESTS[what])
    answer = quintain("leaderboard", folder / "run")
    assert answer.code == 2
    if "leads" in what:
        assert "it is a device, not a file" in answer.error
    else:
        assert "delete it and run the suite again" in answer.error


@pytest.mark.parametrize("name", ["manifest.json", "suite.toml", "tradeoff.csv", ".lock"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_in_a_run_directory_is_named(name, kind, folder, write_suite, quintain):
    out = folder / "out"
    out.mkdir()
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).mkdir()
    answer = quintain("run", write_suite(), "--out", out, "--device", "cpu")
    assert answer.code == 2
    assert str(out / name) in answer.error
    assert [one.name for one in out.iterdir()] == [name]


def test_a_device_is_not_written_over(folder, tiny_run, quintain):
    os.mkfifo(folder / "device.csv")
    for name in ("device.csv", "folder"):
        answer = quintain("leaderboard", tiny_run, "--format", "csv", "--output", folder / name)
        assert answer.code == 2
        assert f"{folder / name} cannot be written" in answer.error
    assert stat.S_ISFIFO((folder / "device.csv").stat().st_mode)
