"""Who may import whom, read from the sources; and what is imported before there is work."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import quintain.bench

ROOT = Path(quintain.bench.__file__).parent.parent
FOLDERS = ("bench", "attacks", "defenses", "models")
BELOW_SUITE = "api datasets store victim engine training report"
ALLOWED = {
    "api": "",
    "datasets": "api",
    "store": "api",
    "victim": "api",
    "engine": "api datasets store victim",
    "training": "api datasets store",
    "report": "api store",
    "suite": BELOW_SUITE,
    "evaluate_model": "api datasets victim engine training report studies",
    "tools": f"{BELOW_SUITE} suite studies evaluate_model",
    "studies": f"{BELOW_SUITE} suite models",
    "cli": f"{BELOW_SUITE} suite evaluate_model tools studies",
    "__init__": "evaluate_model",
    **dict.fromkeys(("attacks", "defenses", "models"), "api"),
    # old paths, kept for one release; nothing of ours imports them
    **dict.fromkeys(("protocols", "threat", "random", "registry", "errors"), "api"),
}
DATASETS = ("digits", "image_folder", "torchvision_sets")  # plugins, reached by the registry alone
LARGEST_FOLDER = 18


def imports(root):
    """Every import of the project's own, within functions too: (importing, imported module)."""
    files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in files]
    modules = dict(zip((name.removesuffix(".__init__") for name in names), files, strict=True))
    for name, path in modules.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                start = "." * node.level + (node.module or "")
                base = resolve_name(start, f"quintain.{package}")
                base = base.removeprefix("quintain.") if node.level else base
                for full in (f"{base}.{alias.name}" for alias in node.names):
                    yield name, full if full in modules else base
            elif isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)


def package_of(module):
    """The package of the rule that a module belongs to; another project's is what it is called."""
    folder, _, rest = module.partition(".")
    return (rest.partition(".")[0] or "__init__") if folder == "bench" else folder


def broken_rules(root):
    """What breaks a rule of the layout, a line each."""
    edges = {(one, other) for one, other in imports(root) if one != other}
    for one, other in sorted(edges):
        here, there = package_of(one), package_of(other)
        ours = other.partition(".")[0] in (*FOLDERS, "quintain")
        if ours and there not in [here, *ALLOWED.get(here, "").split()]:
            yield f"{one} imports {other}"
        if here != "datasets" and other in [f"bench.datasets.{plugin}" for plugin in DATASETS]:
            yield f"{one} imports {other}, a plugin"
    graph = {}
    for one, other in edges:
        graph.setdefault(one, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"a cycle: {' imports '.join(reversed(error.args[1]))}"
    for folder in {path.parent for name in FOLDERS for path in (root / name).rglob("*.py")}:
        if len(list(folder.glob("*.py"))) > LARGEST_FOLDER:
            yield f"{folder.relative_to(root)} has more than {LARGEST_FOLDER} modules"


def test_the_layout_keeps_its_rules():
    assert list(broken_rules(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("bench/victim/model.py", "from ..engine import loop", "model imports bench.engine"),
        (
            "bench/engine/cell.py",
            "def f():\n    from ..report import tables",
            "imports bench.report",
        ),
        ("bench/report/tables.py", "from ..suite import plan", "tables imports bench.suite"),
        ("bench/store/atomic.py", "from .. import evaluate", "bench.store.atomic imports bench"),
        ("bench/suite/plan.py", "from ..tools import scaffold", "plan imports bench.tools"),
        ("bench/suite/plan.py", "from ..datasets.digits import Digits", "digits, a plugin"),
        ("bench/suite/plan.py", "from quintain.bench.api import paths", "plan imports quintain"),
        ("attacks/white_box/pgd.py", "from ...bench import victim", "pgd imports bench"),
        ("defenses/none.py", "from ..models import resnet", "defenses.none imports models"),
        ("bench/api/errors.py", "from .registry import find", "a cycle"),
        ("bench/new.py", "from .api import paths", "bench.new imports bench.api"),
        ("bench/suite/new.py", "", f"bench/suite has more than {LARGEST_FOLDER} modules"),
    ],
)
def test_what_breaks_a_rule_is_noticed(tmp_path, file, line, said):
    assert list(broken_rules(tmp_path)) == []
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    if said == "a cycle":
        (tmp_path / file).with_name("registry.py").write_text("from . import errors")
    for number in range(LARGEST_FOLDER if "more than" in said else 0):
        (tmp_path / file).with_stem(f"new{number}").touch()
    assert [said in one for one in broken_rules(tmp_path)] == [True]


def imports_torch(code):
    """The exit status of a process that runs the code: 1 when torch was imported then."""
    code = f"import sys\n{code}\nsys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


@pytest.mark.parametrize("module", ["", ".cli", ".api.registry", ".suite.config"])
def test_importing_it_does_not_import_torch(module):
    assert imports_torch(f"import quintain.bench{module}") == 0


def test_all_of_the_report_is_made_without_torch():
    names = [path.stem for path in (ROOT / "bench" / "report").glob("[a-z]*.py")]
    assert "tables" in names
    assert imports_torch("\n".join(f"import quintain.bench.report.{one}" for one in names)) == 0


def test_evaluate_is_there_whatever_was_imported_before():
    for first in ("evaluate", "evaluate_model", "Result"):
        code = f"from quintain.bench import {first}, evaluate; assert callable(evaluate)"
        assert imports_torch(code) == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("--help", 0), ("run --help", 0), ("list", 0), ("--version", 0), ("run --no-such-option", 2)],
)
def test_commands_that_do_no_work_import_nothing_heavy(arguments, status):
    """The start-up times in tests/benchmarks depend on it."""
    code = (
        "import sys; from quintain.bench import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as ending: status = ending.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'scipy', 'pyarrow', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else status)"
    )
    command = [sys.executable, "-c", code, *arguments.split()]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert answer.returncode == status, answer.stderr
    assert "imports" not in answer.stderr
