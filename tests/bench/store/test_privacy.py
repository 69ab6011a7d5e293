"""Nothing that a run writes names its author, home folder or computer."""

import json
import platform
import shlex

import pytest
from safetensors import safe_open

from quintain.bench.store.privacy import path_from, private, private_values

RAISES = """
from dataclasses import dataclass
from pathlib import Path
from quintain.bench.api import registry

@registry.attack("raises")
@dataclass(frozen=True)
class Raises:
    access = "decision"

    def run(self, problem):
        raise OSError(f"cannot open {Path.home()}/secret/x.png, {Path(__file__).parent}/y.png")
"""


@pytest.fixture
def alice(tmp_path, monkeypatch):
    """The home folder of somebody."""
    home = tmp_path / "homes" / "alice_b"
    home.mkdir(parents=True)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "alice_b")
    monkeypatch.setattr(platform, "node", lambda: "alices-computer")
    return home


def test_home_folder_user_and_computer_are_left_out_of_text(alice):
    assert private(f"no {alice}/x.png, nor {alice}.") == "no ~/x.png, nor ~."
    assert private(f"'{alice}x'") == f"'{alice}x'".replace(f"{alice}x", f"{alice}x")
    assert private("/scratch/alice_b/data") == "/scratch/USER/data"
    assert private("/nfs/alices-computer/alice_b:1") == "/nfs/HOST/USER:1"
    assert private("root alice_b is no path") == "root alice_b is no path"
    suite = alice / "work"
    assert private(f'File "{suite}/net.py", line 3', suite) == 'File "net.py", line 3'
    assert private(f"{suite}: bad", suite) == ": bad"
    assert private_values({"a": [f"{alice}/b", 3]}) == {"a": ["~/b", 3]}


def test_the_way_to_a_file_gives_no_name_away(alice, tmp_path):
    assert path_from(alice / "runs" / "a", alice / "suite.toml") == "../../suite.toml"
    assert path_from(tmp_path / "data" / "run", alice / "suite.toml") == "suite.toml"


def test_no_file_of_a_run_names_them(alice, tmp_path, write_suite, quintain, monkeypatch):
    folder = alice / "work"
    folder.mkdir()
    (folder / "raises.py").write_text(RAISES)
    attacks = '[[attacks]]\nname = "fgsm"\n[[attacks]]\nname = "raises"\n'
    suite = write_suite(
        folder=folder, plugins=f'["{folder}/raises.py"]', attacks=attacks, description='"mine"'
    )
    out = folder / "runs" / "one"
    assert quintain("run", suite, "--out", out, "--device", "cpu").code == 1
    found = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "suite.toml"
    }
    assert any(name.endswith(".error.txt") for name in found)
    for name, content in found.items():
        for text in (b"alice", str(tmp_path / "homes").encode()):
            assert text not in content, name
    about = json.loads(found["manifest.json"])
    assert about["suite"]["plugins"] == ["~/work/raises.py"]
    (failed,) = (one for one in about["cells"] if one["status"] == "failed")
    assert "~/secret/x.png" in failed["error"]
    assert failed["error"].rstrip(")").endswith("y.png")
    assert shlex.split(about["repeat"])[2] == "../../tiny.toml"
    again = quintain("run", suite, "--out", out, "--device", "cpu")
    assert again.code == 1  # and is not taken for another suite's
    assert "1 were there already" in again.out


def test_no_checkpoint_of_ours_names_them(alice, tmp_path, quintain, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for number in range(2):
            place = alice / "photos" / split / f"class{number}"
            place.mkdir(parents=True)
            for n in range(4):
                Image.new("RGB", (12, 12), (60 * n, 90 * number, 0)).save(place / f"{n}.png")
    options = {"dataset.root": f'"{alice}/photos"', "defense.epochs": 1, "defense.batch_size": 4}
    given = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    answer = quintain(
        "train", "--model", "small-cnn", "--dataset", "imagefolder", "--out", "net.safetensors",
        "--device", "cpu", "--set", "defense.augmentation=none", *given,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    with safe_open(str(tmp_path / "net.safetensors"), framework="pt") as handle:
        text = handle.metadata()["quintain"]
    assert "~/photos" in text
    assert "alice" not in text
