"""Who may import whom: the house rules, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import quintain.bench

HOUSE = Path(quintain.bench.__file__).parent.parent
ROOMS = ("bench", "attacks", "defenses", "models")
PLUGIN_ROOMS = ("attacks", "defenses", "models")
SEAMS = {"protocols", "threat", "registry", "errors", "random", "flags"}


def sources():
    """Module name without the leading `quintain.` -> (file, whether it is a package)."""
    found = {}
    for room in ROOMS:
        for path in sorted((HOUSE / room).rglob("*.py")):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            package = parts[-1] == "__init__"
            found[".".join(parts[:-1] if package else parts)] = (path, package)
    return found


SOURCES = sources()


def imported(module, *, lazily=True):
    """Modules of the project, and names of other packages, that a module imports.

    lazily=False leaves out what is imported within functions or for type checkers only.
    """
    path, package = SOURCES[module]
    here = module.split(".") if package else module.split(".")[:-1]
    inside, outside = set(), set()
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), lazily=lazily):
        if isinstance(node, ast.Import):
            outside |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            outside.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            name = ".".join(part for part in base if part)
            full = {f"{name}.{alias.name}" for alias in node.names}
            inside |= {one if one in SOURCES else name for one in full}
    return inside, outside


def nodes(tree, *, lazily):
    """Walk a tree, stepping over functions and type-checking branches unless asked not to."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not lazily and (isinstance(node, ast.FunctionDef) or typing_only):
            continue
        yield node
        yield from nodes(node, lazily=lazily)


def reachable(module, *, lazily):
    """All modules of the project, and other packages, that importing a module brings in.

    Packages on the way to a module count: Python runs their `__init__` first. What that would
    import later, when a name is asked for, does not.
    """
    todo, seen, outside = [module], set(), set()
    while todo:
        one = todo.pop()
        if one in seen or one not in SOURCES:
            continue
        seen.add(one)
        inside, others = imported(one, lazily=lazily and not SOURCES[one][1])
        outside |= others
        todo += [*inside, *(".".join(one.split(".")[:n]) for n in range(1, one.count(".") + 1))]
    return seen - {module}, outside


def test_the_house_is_all_here():
    assert {"bench.cli", "bench.engine", "attacks.pgd", "models.resnet"} <= SOURCES.keys()
    assert imported("attacks.pgd")[0] >= {"bench.protocols", "attacks.losses"}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_inside_the_project_are_relative(module):
    assert "quintain" not in imported(module)[1]


@pytest.mark.parametrize("module", [one for one in sorted(SOURCES) if one.startswith(PLUGIN_ROOMS)])
def test_plugins_know_the_seams_and_their_own_folder(module):
    room = module.partition(".")[0]
    for one in imported(module)[0]:
        own = one == room or one.startswith(f"{room}.")
        seam = one.startswith("bench.") and one.removeprefix("bench.") in SEAMS
        assert own or seam, f"{module} imports {one}"


@pytest.mark.parametrize("module", [one for one in sorted(SOURCES) if one.startswith("bench")])
def test_the_harness_reaches_plugins_through_the_registry(module):
    """Datasets are plugins too; what serves all of them, memory and checks, is not."""
    helpers = {"bench.datasets.memory", "bench.datasets.checks"}
    for one in imported(module)[0]:
        assert one.partition(".")[0] == "bench", f"{module} imports {one}"
        if not module.startswith("bench.datasets"):
            assert not one.startswith("bench.datasets.") or one in helpers


@pytest.mark.parametrize("module", [one for one in SOURCES if one.startswith("bench.datasets.")])
def test_datasets_know_the_seams_and_each_other(module):
    for one in imported(module)[0]:
        known = SEAMS | {"paths", "files"}
        assert one.startswith("bench.datasets") or one.removeprefix("bench.") in known


BENCHMARK_SEES = {
    "api", "checkpoints", "commands", "datasets.memory", "errors", "files", "inert", "paths",
    "plan", "progress", "protocols", "registry", "settings", "spreadsheet", "threat", "training",
}  # fmt: skip
BELOW = {
    "bench.speed.contenders": {"engine", "evaluation", "gallery", "network", "pursuit", "trial"},
    "bench.speed.captured": {"network", "stepping", "trial"},
}
PEERS = {"foolbox", "torchattacks", "art", "adv_lib"}


@pytest.mark.parametrize("module", [one for one in sorted(SOURCES) if one.startswith("bench.")])
def test_the_benchmark_measures_what_a_user_can_call(module):
    """It reaches no deeper than `evaluate`, the attack alone and the captured floor aside."""
    inside, outside = imported(module)
    own = {one for one in inside if one.startswith("bench.speed")}
    if module.startswith("bench.speed"):
        allowed = BENCHMARK_SEES | {"bench"}
        allowed |= BELOW.get(module, set())
        assert {one.removeprefix("bench.") for one in inside - own} <= allowed
    else:
        assert not own or module == "bench.cli"
    assert not outside & PEERS


ORDER = ["bench.cli", "bench.runner", "bench.engine", "bench.protocols", "bench.threat"]


@pytest.mark.parametrize(
    ("lower", "upper"), [(low, up) for i, up in enumerate(ORDER) for low in ORDER[i + 1 :]]
)
def test_nothing_imports_what_stands_above_it(lower, upper):
    inside, _ = reachable(lower, lazily=True)
    assert upper not in inside
    assert lower in reachable(upper, lazily=True)[0]


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("bench.statistics", set()),
        ("bench.random", set()),
        ("bench.grid", {"bench.errors"}),
        ("bench.errors", set()),
        ("bench.flags", set()),
        ("bench.threat", {"bench.random", "bench.grid"}),
    ],
)
def test_the_ground_floor_stands_on_nothing(module, allowed):
    assert imported(module)[0] <= allowed


@pytest.mark.parametrize(
    "module",
    ["bench.report", "bench.tables", "bench.queries", "bench.statistics", "bench.figure"],
)
def test_tables_are_made_without_torch(module):
    _, outside = reachable(module, lazily=False)
    assert not outside & {"torch", "torchvision"}
    assert "torch" not in imported(module)[1]


@pytest.mark.parametrize("module", ["bench.cli", "bench.tables", "bench.report", "bench.registry"])
def test_importing_it_does_not_import_torch(module):
    code = f"import sys, quintain.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_is_not_enough_to_import_torch():
    code = "import sys, quintain.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys; from quintain.bench import evaluate; sys.exit('torch' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("--help", 0), ("run --help", 0), ("list", 0), ("--version", 0), ("run --no-such-option", 2)],
)
def test_commands_that_do_no_work_import_nothing_heavy(arguments, status):
    """The start-up times in tests/benchmarks hang on it."""
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
