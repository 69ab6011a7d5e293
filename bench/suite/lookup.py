"""What can be said of a user's names before torch is imported: most mistakes are in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..api import registry
from ..api.errors import BadPlugin, BadSuite, QuintainError, UnknownPlugin
from ..api.plugins.plugin import KINDS, Plugin
from ..api.shared.path_names import relative_to
from .config import Suite

CHECKED = ("attacks", "models", "defenses", "datasets", "studies")


def check_names(suite: Suite, file: str, folder: Path) -> None:
    """Look whether the plugins that a suite names are there. None of them is imported.

    What the suite's own plugin files register is known only once they have run, so beside such
    files only the files themselves are looked for.

    Raises: BadSuite, naming the file and the key.
    """
    for one in suite.plugins:
        with blamed(file, "plugins"):
            registry.check_named(one, folder)
    if suite.plugins:
        return
    with relative_to(folder):
        with blamed(file, "dataset"):
            registry.check_name("datasets", suite.dataset.name)
        for kind in ("models", "defenses", "attacks"):
            for number, entry in enumerate(getattr(suite, kind), 1):
                with blamed(file, f"{kind}[{number}]"):
                    registry.check_name(kind, entry.name)
        if suite.transfer is not None:
            with blamed(file, "transfer"):
                registry.check_name("attacks", suite.transfer.name)


def names_files(suite: Suite) -> bool:
    """Whether a suite names files: the user's plugins, checkpoints or data."""
    named = (one.spec for one in (*suite.models, *suite.attacks, *suite.defenses, suite.dataset))
    return (
        bool(suite.plugins or suite.dataset.spec.get("root"))
        or any(one.checkpoint for one in suite.models)
        or any(map(registry.names_files, named))
    )


@contextmanager
def blamed(file: str, key: str) -> Iterator[None]:
    """Say of an error which file and key it comes from. Raises: BadSuite."""
    try:
        yield
    except QuintainError as error:
        raise BadSuite(f"{file}: {key}: {error}") from error


def plugins_named(plugin: str) -> tuple[Plugin, ...]:
    """The plugins of a name that can be checked, or all such that a Python file registers.

    Raises: UnknownPlugin; BadPlugin when the file cannot be loaded or registers none.
    """
    path = Path(plugin)
    if path.suffix == ".py" or path.is_file():
        registered = tuple(one for one in registry.load_file(path) if one.kind in CHECKED)
        if not registered:
            raise BadPlugin(f"plugin file {path} registers none of {', '.join(CHECKED)}")
        return registered
    named = {kind: one for kind in KINDS for one in registry.plugins(kind) if one.name == plugin}
    found = tuple(one for kind, one in named.items() if kind in CHECKED)
    if named and not found:
        raise UnknownPlugin(
            f"'{plugin}' is among the {', '.join(named)}; what can be checked are "
            f"{', '.join(CHECKED)}"
        )
    if found:
        return found
    try:
        return (registry.find("attacks", plugin),)
    except UnknownPlugin as error:
        raise UnknownPlugin(
            f"{error}; an attack of your own: give its file{_near(plugin)}"
        ) from None


def _near(plugin: str) -> str:
    guess = Path(f"{plugin.replace('-', '_')}.py")
    return f", {guess}" if guess.is_file() else ""
