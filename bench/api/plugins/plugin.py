"""The kinds of plugins, what a plugin is before it is loaded, and the specs that people write."""

import ast
import importlib.util
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadParameter, BadPlugin, errors_as, one_line
from ..shared.toml import BadTOML, read_toml
from .source_digest import installed_digest, source_digest


class Kind(NamedTuple):
    """A kind of plugin.

    singular: what messages call one. contract: the class of bench/api that plugins of the kind
    implement; a hyper-parameter annotated with it is such a plugin.
    """

    singular: str
    contract: str


# to add a kind, add a row; installed plugins of it are the entry points of quintain.NAME
KINDS: Mapping[str, Kind] = {
    "models": Kind("model", "defense.ModelFactory"),
    "attacks": Kind("attack", "attack.Attack"),
    "defenses": Kind("defense", "defense.Defense"),
    "datasets": Kind("dataset", "data.Dataset"),
    "gradients": Kind("gradient source", "attack.GradientSource"),
    "losses": Kind("loss", "attack.Loss"),
    "bases": Kind("basis", "attack.Basis"),
    "studies": Kind("study", "study.Study"),
}
Spec = str | Mapping[str, Any]
_NAMESPACE = f"{__package__.partition('.')[0]}."


@dataclass(frozen=True)
class Plugin:
    """A plugin's name and where it is, before it is loaded.

    source: the distribution or the file that it comes from. release: the distribution and its
    version, or what else names the code where it is not local. file: the user's own, if it is one.
    """

    kind: str
    name: str
    source: str
    target: str
    factory: Callable[..., Any] | None = None
    release: str = ""
    file: Path | None = None

    @property
    def title(self) -> str:
        """What messages call it, such as `attack 'pgd'`."""
        return f"{KINDS[self.kind].singular} '{self.name}'"

    @property
    def code(self) -> str:
        """Name the code that the plugin runs: its release, or a hash of its local source files."""
        if self.file is not None:
            return source_digest(self.file)
        module = self.target.partition(":")[0] if self.factory is None else ""
        return (installed_digest(module) if module else None) or self.release

    @property
    def is_users(self) -> bool:
        """Whether it is code of the user's: in a file, or in a package that is no release."""
        ours = self.target.startswith(_NAMESPACE)
        module = self.target.partition(":")[0] if self.factory is None else ""
        return self.file is not None or bool(not ours and module and installed_digest(module))

    def load(self) -> Callable[..., Any]:
        """Import the factory.

        Raises: BadPlugin when the import fails.
        """
        if self.factory is not None:
            return self.factory
        module, _, attribute = self.target.partition(":")
        title = f"{self.title} ({self.source}) cannot be loaded from {self.target}"
        with errors_as(BadPlugin, title):
            return typing.cast(Callable[..., Any], getattr(import_module(module), attribute))

    def summary(self) -> str:
        """First line of the factory's docstring, read from its source without importing it.

        The packages around its module are imported. Where one of them breaks, the line says so.
        """
        module, _, attribute = self.target.partition(":")
        try:
            spec = importlib.util.find_spec(module)
            tree = (
                ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
                if spec and spec.origin
                else None
            )
        except (Exception, SystemExit) as error:  # a package's own code may raise anything
            return f"cannot be loaded from {self.target}: {one_line(error)}"
        for node in tree.body if tree else ():
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == attribute:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return ""


def read_specs(names: Mapping[str, str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Plugin specs from names and `part.key=value` settings, whose values are TOML.

    Raises: BadParameter for a setting of a part that was not named.
    """
    specs: dict[str, dict[str, Any]] = {part: {"name": name} for part, name in names.items()}
    for setting in settings:
        left, separator, right = setting.partition("=")
        part, dot, key = left.strip().partition(".")
        if not (separator and dot and key) or part not in specs:
            raise BadParameter(
                f"--set {setting}: expected PART.KEY=VALUE with PART one of "
                + (", ".join(names) or "those that other options name")
            )
        try:
            specs[part][key] = read_toml(f"value = {right}")["value"]
        except BadTOML:
            specs[part][key] = right.strip()
    return specs
