"""What a plugin is and takes, read off its factory and its docstring."""

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ..api import registry
from ..api.epsilon import NORMS
from ..api.errors import BadParameter, QuintainError, UnknownPlugin, closest
from ..api.plugins.plugin import KINDS, Kind, Plugin
from ..suite.config import bundled, read_suite

_SUITES = "suites"
_SOURCE = re.compile(r"Source:\s+([^;]*?\((?:arXiv:[\d.]+)\))|Source:\s+([^.;]*)")
_PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_NAMES = re.compile(r"(?:^|(?<=\s))([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*):\s")


def describe(name: str, kind: str | None = None) -> str:
    """Say what a plugin of any kind, or a bundled suite, is, where it is from, and what it takes.

    Raises: UnknownPlugin, naming the closest match; BadParameter when the name is one of several
    kinds, which are named; BadPlugin when it cannot be loaded.
    """
    kinds = [*KINDS, _SUITES]
    if kind is not None and kind not in kinds:
        near = closest(kind, kinds) or "; there are " + ", ".join(kinds)
        raise UnknownPlugin(f"no kind '{kind}'{near}")
    found = [one for one in ([kind] if kind else kinds) if _has(one, name)]
    if len(found) > 1:
        raise BadParameter(
            f"'{name}' is one of {' and of '.join(found)}: say which, with --kind {found[0]}"
        )
    if not found:
        raise _unknown(name, [kind] if kind else kinds)
    return _suite(name) if found[0] == _SUITES else _plugin(found[0], name)


def _has(kind: str, name: str) -> bool:
    if kind == _SUITES:
        return name in bundled()
    if ":" in name:  # a provider's, or a factory in a file
        try:
            registry.find(_kind(kind), name)
        except QuintainError:
            return False
        return True
    return any(one.name == name for one in registry.plugins(_kind(kind)))


def _kind(kind: str) -> Kind:
    return next(one for one in KINDS if one == kind)


def _unknown(name: str, kinds: list[str]) -> QuintainError:
    if ":" in name:
        for one in kinds:
            prefix = name.partition(":")[0]
            if one != _SUITES and (prefix.endswith(".py") or _provides(one, prefix)):
                try:
                    registry.find(_kind(one), name)
                except QuintainError as error:
                    return error
    names = [one.name for kind in kinds if kind != _SUITES for one in registry.plugins(_kind(kind))]
    names += bundled() if _SUITES in kinds else ()
    near = closest(name, names) or "; quintain list shows what there is"
    return UnknownPlugin(f"nothing is called '{name}'{near}")


def _provides(kind: str, prefix: str) -> bool:
    return any(name == f"{prefix}:NAME" for name, _ in registry.provider_lines(_kind(kind)))


def _suite(name: str) -> str:
    suite, text, _ = read_suite(name)
    return f"{name} (suite)\n\n  {suite.description}\n\n{text.rstrip()}"


def _plugin(kind: str, name: str) -> str:
    plugin = registry.find(_kind(kind), name)
    factory = plugin.load()
    made = _made(kind, name)
    doc = inspect.getdoc(factory) or ""
    lines = [f"{name} ({kind})", "", *_indented(doc.partition("\n\n")[0]), ""]
    lines += [
        f"{title}: {text}"
        for title, text in _facts(kind, plugin, factory if made is None else made, doc).items()
    ]
    parameters = registry.parameters(_kind(kind), name)
    if not parameters:
        return "\n".join([*lines, "", "It takes no parameters."])
    meanings = _meanings(factory, made, set(parameters))
    lines += ["", "parameters:"]
    for key, (annotation, default) in parameters.items():
        value = "needed" if default is inspect.Parameter.empty else _shown(default)
        lines.append(f"  {key}: {_type(annotation)} = {value}")
        lines += _indented(meanings.get(key, ""), 6)
    return "\n".join(lines)


def _made(kind: str, name: str) -> Any:
    """The plugin with its defaults; None for models, and where something must be given."""
    if kind == "models":
        return None
    try:
        return registry.build(_kind(kind), name)
    except QuintainError:
        return None


def _facts(kind: str, plugin: Plugin, made: Any, doc: str) -> Mapping[str, str]:
    """What can be said in a line each: source, origin, version, and of attacks what they need."""
    paper = _SOURCE.search(doc)
    source = paper.group(1) or paper.group(2) if paper else ", ".join(_PAPER.findall(doc)[:3])
    said = {
        "source": " ".join(source.split()),
        "from": f"{plugin.source} ({plugin.target})",
        "version": str(getattr(made, "version", "1")),
    }
    if kind in ("attacks", "gradients"):
        said["access"] = str(getattr(made, "access", ""))
    if kind == "attacks" and hasattr(made, "access"):
        from ..engine.config import (  # needs torch, as the plugin itself does
            AttackStage,
            flatten_cascade,
        )

        stages = [one.attack for one in flatten_cascade([AttackStage(made)])]
        said["norms"] = ", ".join(
            norm for norm in NORMS if all(norm in getattr(m, "norms", NORMS) for m in stages)
        )
        said["targeted"] = (
            "yes" if all(getattr(one, "targetable", True) for one in stages) else "no"
        )
    if kind == "defenses" and getattr(made, "certifies", None):
        said["certifies"] = str(made.certifies)
    return {title: text for title, text in said.items() if text}


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
