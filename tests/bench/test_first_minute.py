"""What a command brings into memory before it can say what is wrong, or that nothing is left."""

import os
import subprocess
import sys

import pytest

PROBE = """
import sys
from quintain.bench import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as ending:
    print("status", ending.code)
print("modules", *sys.modules)
"""
BAD = {
    "syntax.toml": "epsilons = [",
    "key.toml": 'dataset = "digits"\nepsilons = [0.1]\nmodells = 3\n',
    "epsilon.toml": 'dataset = "digits"\nepsilons = ["x"]\n[[models]]\nname = "resnet"\n',
    "model.toml": 'dataset = "digits"\nepsilons = [0.1]\n[[models]]\nname = "resnett"\n',
    "attack.toml": 'dataset = "digits"\nepsilons = [0.1]\n[[models]]\nname = "resnet"\n'
    '[[attacks]]\nname = "pgdd"\n',
    "defense.toml": 'dataset = "digits"\nepsilons = [0.1]\n[[models]]\nname = "resnet"\n'
    '[[defenses]]\nname = "nonne"\n',
    "dataset.toml": 'dataset = "digitz"\nepsilons = [0.1]\n[[models]]\nname = "resnet"\n',
    "transfer.toml": 'dataset = "digits"\nepsilons = [0.1]\ntransfer = "mi-fgsmm"\n'
    '[[models]]\nname = "resnet"\n',
    "prefix.toml": 'dataset = "digits"\nepsilons = [0.1]\n[[models]]\nname = "torchvison:x"\n',
    "file.toml": 'dataset = "digits"\nepsilons = [0.1]\n[[models]]\nname = "nosuch.py:make"\n',
    "plugin.toml": 'dataset = "digits"\nepsilons = [0.1]\nplugins = ["nosuch.py"]\n'
    '[[models]]\nname = "resnet"\n',
    "good.toml": 'dataset = "digits"\nepsilons = [0.1]\n[[models]]\nname = "resnet"\n',
}


def probe(*arguments, folder):
    """Run the command line in a fresh process: its status, its errors, the modules it imported."""
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    *_, status, modules = answer.stdout.splitlines()
    return int(status.split()[1]), answer.stderr, set(modules.split()[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("mistakes")
    for name, text in BAD.items():
        (made / name).write_text(text)
    (made / "somebodys").mkdir()
    (made / "somebodys" / "thesis.tex").write_text("")
    return made


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("run nosuch.toml", "no suite 'nosuch.toml'"),
        ("run quikstart", "did you mean 'quickstart'"),
        ("run syntax.toml", "not valid TOML"),
        ("run key.toml", "unknown key 'modells'"),
        ("run epsilon.toml", "epsilon 'x'"),
        ("run model.toml", "models[1]: unknown model 'resnett'; did you mean 'resnet'"),
        ("run attack.toml", "attacks[1]: unknown attack 'pgdd'; did you mean 'pgd'"),
        ("run defense.toml", "defenses[1]: unknown defense 'nonne'; did you mean 'none'"),
        ("run dataset.toml", "dataset: unknown dataset 'digitz'; did you mean 'digits'"),
        ("run transfer.toml", "transfer: unknown attack 'mi-fgsmm'; did you mean 'mi-fgsm'"),
        ("run prefix.toml", "models[1]: unknown model 'torchvison:x'"),
        ("run file.toml", "nosuch.py does not exist"),
        ("run plugin.toml", "plugins: plugin file"),
        ("run good.toml --out somebodys", "not a run directory and not empty"),
        ("run good.toml --seed x", "Invalid value for '--seed'"),
        ("leaderboard nosuch", "nosuch is not a run directory"),
        ("leaderboard nosuch --format x", "no format 'x'"),
        ("plot nosuch", "nosuch is not a run directory"),
        ("plot nosuch --output x.xyz", "no format of figures"),
        ("train --model resnett", "unknown model 'resnett'"),
        ("train --model resnet --defense x", "unknown defense 'x'"),
        ("train --model resnet --epsilon x", "epsilon 'x'"),
        ("train --model resnet --out x.pt", "a checkpoint is a .safetensors file"),
        ("check nosuch", "unknown attack 'nosuch'"),
        ("check nosuch.py", "nosuch.py does not exist"),
    ],
)
def test_a_mistake_is_answered_without_torch_or_pandas(arguments, says, folder):
    """Each of them takes longer to import than the answer may take."""
    status, errors, modules = probe(*arguments.split(), folder=folder)
    assert status == 2
    assert errors.startswith("quintain: error: ")
    assert len(errors.splitlines()) == 1
    assert says in errors
    assert not {"torch", "pandas", "scipy", "pyarrow", "matplotlib"} & modules


def test_a_run_with_nothing_left_to_do_imports_nothing_that_it_does_not_need(tiny_run):
    status, _, modules = probe(
        "run", tiny_run.parent / "tiny.toml", "--out", tiny_run, "--device", "cpu", folder=tiny_run
    )
    assert status == 0
    needless = {"torchvision", "torch._dynamo", "sklearn", "scipy", "matplotlib"}
    assert not needless & modules
    assert "torch" in modules
