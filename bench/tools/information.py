"""What a plugin is and takes, read off its factory and its docstring."""

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..api import registry
from ..api.epsilon import NORMS
from ..api.errors import BadParameter, BadPlugin, QuintainError, UnknownPlugin, closest
from ..api.plugins import third_party
from ..api.plugins.plugin import KINDS, Plugin
from ..suite.config import bundled, read_suite

_SUITES = "suites"
_SOURCE = re.compile(r"Source:\s+(?:([^;]*?\(arXiv:[\d.]+\))|((?:[^.;]|\.(?=\d))*))")
_PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_NAMES = re.compile(r"(?:^|(?<=\s))([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*):\s")


def describe(name: str, kind: str | None = None) -> str:
    """Say what a plugin of any kind, or a bundled suite, is, where it is from, and what it takes.

    Raises: UnknownPlugin, naming the closest match; BadParameter when the name is one of several
    kinds, which are named; BadPlugin when it cannot be loaded.
    """
    kinds = [kind] if kind else [*KINDS, _SUITES]
    found = [one for one in kinds if _has(one, name)]
    if len(found) > 1:
        raise BadParameter(
            f"'{name}' is one of {' and of '.join(found)}: say which, with --kind {found[0]}"
        )
    if not found:
        raise _unknown(name, kinds)
    return _suite(name) if found[0] == _SUITES else _plugin(found[0], name)


def _has(kind: str, name: str) -> bool:
    if kind == _SUITES:
        return name in bundled()
    try:
        registry.find(kind, name)
    except (UnknownPlugin, BadPlugin):
        return False
    return True


def _unknown(name: str, kinds: Sequence[str]) -> QuintainError:
    prefix, colon, _ = name.partition(":")
    plugins = [one for one in kinds if one != _SUITES]
    for kind in plugins if colon else ():
        if prefix.endswith(".py") or prefix in third_party.prefixes(kind):
            try:
                registry.find(kind, name)
            except QuintainError as error:
                return error
    names = [one.name for kind in plugins for one in registry.plugins(kind)]
    names += bundled() if _SUITES in kinds else ()
    near = closest(name, names) or "; quintain list shows what there is"
    return UnknownPlugin(f"nothing is called '{name}'{near}")


def _suite(name: str) -> str:
    suite, text, _ = read_suite(name)
    return f"{name} (suite)\n\n  {suite.description}\n\n{text.rstrip()}"


def _plugin(kind: str, name: str) -> str:
    plugin = registry.find(kind, name)
    factory = plugin.load()
    made = _made(kind, name)
    doc = inspect.getdoc(factory) or ""
    lines = [f"{name} ({kind})", "", *_indented(doc.partition("\n\n")[0]), ""]
    lines += [
        f"{title}: {text}"
        for title, text in _facts(kind, plugin, factory if made is None else made, doc).items()
    ]
    parameters = described_parameters(kind, name)
    if not parameters:
        return "\n".join([*lines, "", "It takes no parameters."])
    lines += ["", "parameters:"]
    for one in parameters:
        lines.append(f"  {one.name}: {one.type} = {one.default}")
        lines += _indented(one.meaning, 6)
    return "\n".join(lines)


class Parameter(NamedTuple):
    """A parameter of a plugin in words. default: "needed" where there is none."""

    name: str
    type: str
    default: str
    meaning: str


def described_parameters(kind: str, name: str) -> list[Parameter]:
    """What a plugin takes, with what its docstring says of each.

    Raises: UnknownPlugin; BadPlugin.
    """
    parameters = registry.parameters(kind, name)
    factory = registry.find(kind, name).load()
    meanings = _meanings(factory, _made(kind, name), set(parameters))
    return [
        Parameter(
            key,
            _type(annotation),
            "needed" if default is inspect.Parameter.empty else _shown(default),
            meanings.get(key, ""),
        )
        for key, (annotation, default) in parameters.items()
    ]


def _made(kind: str, name: str) -> Any:
    """The plugin with its defaults; None for models, and where something must be given."""
    if kind == "models":
        return None
    try:
        return registry.build(kind, name)
    except QuintainError:
        return None


def _facts(kind: str, plugin: Plugin, made: Any, doc: str) -> Mapping[str, str]:
    """What can be said in a line each: source, origin, version, and of attacks what they need."""
    said = {
        "source": source_of(doc) or ", ".join(_PAPER.findall(doc)[:3]),
        "from": f"{plugin.source} ({plugin.target})",
        "version": str(getattr(made, "version", "1")),
    }
    if kind == "gradients":
        said["access"] = str(getattr(made, "access", ""))
    if kind == "attacks" and hasattr(made, "access"):
        said |= attack_facts(made)
    if kind == "defenses" and getattr(made, "certifies", None):
        said["certifies"] = str(made.certifies)
    return {title: text for title, text in said.items() if text}


def attack_facts(attack: Any) -> dict[str, str]:
    """What an attack needs and can do, of a cascade all its stages: access, norms, targeted."""
    from ..engine.config import AttackStage, flatten_cascade  # torch, as the attack itself

    stage = AttackStage(attack)
    norms = [
        norm
        for norm in NORMS
        if all(
            norm in getattr(one.attack, "norms", NORMS) for one in flatten_cascade([stage], norm)
        )
    ]
    aiming = flatten_cascade([stage], norms[0], targeted=True)
    targeted = all(getattr(one.attack, "targetable", True) for one in aiming)
    return {
        "access": str(attack.access),
        "norms": ", ".join(norms),
        "targeted": "yes" if targeted else "no",
    }


def source_of(doc: str) -> str:
    """The paper or the place that a docstring says its method is from, "" where it says none."""
    found = _SOURCE.search(doc)
    return " ".join((found[1] or found[2]).split()) if found else ""


def _meanings(factory: Callable[..., Any], made: Any, names: set[str]) -> dict[str, str]:
    """What docstrings say of parameters, as `name, name: what they are`.

    After the factory's those of what it makes and of its base classes are read.
    """
    classes = [factory, *inspect.getmro(factory if inspect.isclass(factory) else type(made))]
    said: dict[str, str] = {}
    for one in classes:
        for paragraph in (inspect.getdoc(one) or "").split("\n\n"):
            matches = [m for m in _NAMES.finditer(paragraph) if names >= {*m[1].split(", ")}]
            ends = [*(one.start() for one in matches), len(paragraph)]
            for number, match in enumerate(matches, 1):
                text = " ".join(paragraph[match.end() : ends[number]].split())
                for name in match[1].split(", "):
                    said.setdefault(name, text)
    return said


def _indented(text: str, margin: int = 2) -> list[str]:
    space = " " * margin
    return textwrap.wrap(" ".join(text.split()), 96, initial_indent=space, subsequent_indent=space)


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty or annotation is Any:
        return "any"
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(repr(one) for one in typing.get_args(annotation))
    text = inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def _shown(default: Any) -> str:
    made_again = type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS"
    return "made again for each" if made_again else repr(default)
