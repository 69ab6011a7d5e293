"""Plugins: found by entry point, by decorator, or in a file that a suite names.

Nothing is imported until it is asked for, so listing plugins does not import torch. A plugin is a
factory: its keyword parameters are its hyper-parameters.
"""

import inspect
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from .errors import (
    BadParameter,
    BadPlugin,
    DuplicatePlugin,
    QuintainError,
    UnknownPlugin,
    closest,
    reason,
    synonym,
)
from .plugins import third_party, user_files
from .plugins.binding import converted, schema_of
from .plugins.plugin import KINDS, Kind, Plugin, Spec, singular
from .plugins.source_digest import source_digest
from .shared.path_names import located
from .shared.safe_text import short

_BESIDE = ("epsilons", "norm", "seed", "targets", "batch_size")
F = TypeVar("F", bound=Callable[..., Any])
_local: dict[tuple[Kind, str], Plugin] = {}
_permitted: set[Path | str] = set()  # files, and names with a colon, that the user asked for


def register(kind: Kind, name: str) -> Callable[[F], F]:
    """Register a factory under a name, as a decorator.

    Raises: DuplicatePlugin when the name is taken.

    >>> import math, torch
    >>> from quintain.bench.api import registry
    >>> @registry.model("linear")
    ... def linear(inputs, *, bias: bool = True):
    ...     layer = torch.nn.Linear(math.prod(inputs.shape), inputs.n_classes, bias=bias)
    ...     return torch.nn.Sequential(torch.nn.Flatten(), layer)
    >>> registry.parameters("models", "linear")
    {'bias': (<class 'bool'>, True)}
    """

    def decorate(factory: F) -> F:
        where = Path(inspect.getfile(factory))
        plugin = Plugin(
            kind,
            name,
            source=str(where),
            target=f"{factory.__module__}:{factory.__qualname__}",
            factory=factory,
            file=where,
        )
        taken = _available(kind).get(name)
        if taken is not None:
            raise DuplicatePlugin(
                f"{singular(kind)} '{name}' is defined twice: in {taken.source} and in {where}"
            )
        _local[kind, name] = plugin
        return factory

    return decorate


attack = partial(register, "attacks")
gradient = partial(register, "gradients")
loss = partial(register, "losses")
basis = partial(register, "bases")
model = partial(register, "models")
defense = partial(register, "defenses")
dataset = partial(register, "datasets")


def load_file(path: Path) -> tuple[Plugin, ...]:
    """Run a plugin file once and return what it registered.

    Raises: BadPlugin when it is missing, fails, or registers nothing; DuplicatePlugin.
    """
    path = user_files.absolute(path)
    _permitted.add(path)
    name = user_files.module_name(path)
    known = [one for one in _local.values() if one.target.partition(":")[0] == name]
    if known:
        return tuple(known)
    before = set(_local)
    sys.modules.pop(name, None)  # run for a factory in it, in a registry that has been forgotten
    try:
        user_files.run(path)
    except BaseException:
        for key in set(_local) - before:
            del _local[key]
        raise
    added = tuple(_local[key] for key in _local if key not in before)
    if not added:
        raise BadPlugin(
            f"plugin file {path} registers nothing; decorate with @registry.attack(...)"
        )
    return added


def registered(factory: object) -> Plugin | None:
    """The plugin whose factory this is; None for what nobody registered."""
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    target = f"{module}:{name}"
    own = (one for one in _local.values() if one.target == target)
    return next(own, None) or _installed_targets().get(target)


def load_named(name: str, folder: Path) -> None:
    """Load what the user names as a plugin: a file, relative to a folder, or a name with a colon.

    The latter, such as `notes.py:Mine` or `torchvision:resnet18`, may then stand in specs that come
    from data.

    Raises: BadPlugin; DuplicatePlugin.
    """
    if not _is_code(name):
        load_file(located(name, folder))
        return
    asked_for = _asked_for(name)
    if isinstance(asked_for, Path):
        user_files.module_name(asked_for)
    _permitted.add(asked_for)


def check_named(name: str, folder: Path) -> None:
    """Look whether the file that `load_named` would run is there, running nothing.

    Raises: BadPlugin.
    """
    asked_for = _asked_for(name) if _is_code(name) else located(name, folder)
    if isinstance(asked_for, Path):
        user_files.module_name(user_files.absolute(asked_for))


def refuse_code(spec: Any) -> None:
    """Refuse a spec that comes from data, such as a checkpoint's, and names code at any depth.

    Data may name what is registered. What a name with a colon stands for, a file of Python or
    another library's part, is run only where the user has named it too (`load_named`).

    Raises: BadPlugin, with the option that permits it.
    """
    for text in _texts(spec):
        if _is_code(text) and _asked_for(text) not in _permitted:
            shown = short(text)
            raise BadPlugin(
                f"'{shown}' is code, which no data may choose to run; if you trust it, name it "
                f"yourself: --plugin {shlex.quote(shown)} (in a suite: plugins = "
                f"[{json.dumps(shown)}])"
            )


def _texts(spec: Any) -> Iterator[str]:
    """Every text in a spec, at any depth. What is deeper than Python's stack raises nothing."""
    todo = [spec]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, Iterable):
            todo += list(one)


def _is_code(name: str) -> bool:
    """Whether a name with a colon stands for a file of Python or for another library's part."""
    prefix, colon, _ = name.partition(":")
    library = bool(colon) and any(prefix in third_party.prefixes(kind) for kind in KINDS)
    return library or user_files.reference(name) is not None


def _asked_for(name: str) -> Path | str:
    """What the user permits by such a name: a file, or the very name."""
    reference = user_files.reference(name)
    return name if reference is None else reference[0]


def code_of(described: Any) -> list[str]:
    """Name the code of all plugins that a spec, or a plugin's configuration, names at any depth."""
    if isinstance(described, str):
        named = {one.code for (_, name), one in _local.items() if name == described}
        found = user_files.reference(described)
        there = found is not None and found[0].is_file()
        return sorted(named | ({source_digest(found[0])} if found and there else set()))
    if not isinstance(described, (Mapping, list, tuple)):
        return []
    inner = described.values() if isinstance(described, Mapping) else described
    codes = {code for one in inner for code in code_of(one)}
    if isinstance(described, Mapping) and {"kind", "plugin"} <= described.keys():
        codes.add(find(described["kind"], described["plugin"]).code)
    return sorted(codes)


def names_files(spec: Any) -> bool:
    """Whether a spec names plugins in files of the user's at any depth."""
    if isinstance(spec, str):
        return user_files.reference(spec) is not None or any(name == spec for _, name in _local)
    inner = spec.values() if isinstance(spec, Mapping) else spec
    return isinstance(inner, Iterable) and any(map(names_files, inner))


@contextmanager
def temporary() -> Iterator[None]:
    """Forget at the end whatever was registered or found installed within."""
    before, permitted = dict(_local), set(_permitted)
    _forget_installed()
    try:
        yield
    finally:
        for key in set(_local) - set(before):
            module = _local[key].target.partition(":")[0]
            if module.startswith(user_files.FILE_MODULE):
                sys.modules.pop(module, None)
        _local.clear()
        _local.update(before)
        _permitted.intersection_update(permitted)
        _forget_installed()


def _forget_installed() -> None:
    _installed.cache_clear()
    _installed_targets.cache_clear()
    third_party.forget()


def plugins(kind: Kind) -> tuple[Plugin, ...]:
    """All plugins of a kind, by name.

    Raises: DuplicatePlugin when two distributions bring the same name.

    >>> from quintain.bench.api import registry
    >>> [one.name for one in registry.plugins("datasets")][:4]
    ['cifar10', 'cifar100', 'digits', 'fashion-mnist']
    """
    return tuple(one for _, one in sorted(_available(kind).items()))


def find(kind: Kind, name: str) -> Plugin:
    """Look a plugin up. A name with a colon that nobody registered is left to its provider.

    Raises: UnknownPlugin, naming the closest match and what there is; DuplicatePlugin; BadPlugin
    when what a provider needs is missing.

    >>> from quintain.bench.api import registry
    >>> registry.find("attacks", "pgd").target
    'quintain.attacks.white_box.pgd:PGD'
    >>> registry.find("attacks", "pdg")
    Traceback (most recent call last):
        ...
    quintain.bench.api.errors.UnknownPlugin: unknown attack 'pdg'; did you mean 'pgd'? ...
    """
    known = _available(kind)
    if name in known:
        return known[name]
    if ":" in name:
        found = third_party.provide(kind, singular(kind), name)
        return Plugin(kind, name, found.source, name, found.factory, found.release, found.file)
    raise _unknown(kind, name, known)


def check_name(kind: Kind, name: str) -> None:
    """Look whether a plugin of this name may be there, importing nothing: a command's first look.

    Of a name with a colon it is seen whether the file is there, or what the prefix stands for.

    Raises: as find.
    """
    known = _available(kind)
    if name in known:
        return
    if ":" in name:
        third_party.check_name(kind, singular(kind), name)
    else:
        raise _unknown(kind, name, known)


def _unknown(kind: Kind, name: str, known: Iterable[str]) -> UnknownPlugin:
    listed = [*sorted(known), *(f"{prefix}:NAME" for prefix in third_party.prefixes(kind))]
    return UnknownPlugin(
        f"unknown {singular(kind)} '{name}'{closest(name, known) or '.'} "
        f"There are: {', '.join(listed)}"
    )


def provider_lines(kind: Kind) -> list[tuple[str, str]]:
    """The prefixes of a kind, each with a line that says what it stands for. Imports nothing."""
    found = [
        (f"{prefix}:NAME", Plugin(kind, prefix, "", entry.value).summary())
        for prefix, entry in third_party.prefixes(kind).items()
    ]
    if kind in ("attacks", "models"):
        found.append(("FILE.py:FACTORY", "A factory in a file of your own."))
    return found


def brings_weights(spec: Mapping[str, Any]) -> bool:
    """Whether a model comes with weights: its factory says so of the hyper-parameters.

    Raises: as find.
    """
    name, given = _split("models", spec)
    brings = getattr(find("models", name).load(), "brings_weights", None)
    return bool(brings(given)) if brings else False


def bind(kind: Kind, spec: Spec, *, besides: Iterable[str] = ()) -> Callable[..., Any]:
    """Bind a plugin's factory to the checked hyper-parameters of a spec.

    spec: a name, or a mapping with a `name` and hyper-parameters. A hyper-parameter that is itself
    a plugin (a gradient source, a loss) is built from its own spec. besides: what else the user
    may have meant when a parameter does not exist.

    Raises: UnknownPlugin; BadParameter for a missing name, an unknown or ill-typed parameter.

    A model is bound first, and made when its input is known:
    >>> from quintain.bench.api import registry
    >>> from quintain.bench.api.defense import InputSpec
    >>> factory = registry.bind("models", {"name": "resnet", "depth": 8})
    >>> network = factory(InputSpec((1, 16, 16), 10, mean=(0.5,), std=(0.25,)))
    >>> sum(one.numel() for one in network.parameters())
    75002
    """
    name, given = _split(kind, spec)
    plugin = find(kind, name)
    schema = schema_of(plugin)
    label = f"{singular(kind)} '{name}'"
    accepted = schema.accepted
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in accepted:
            takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            near = _beside(kind, key) or closest(key, [*accepted, *besides]) or ";"
            raise BadParameter(f"{label} has no parameter '{key}'{near} {takes}")
        values[key] = converted(label, key, value, schema, build)
    for key in schema.required - values.keys():
        raise BadParameter(f"{label} needs the parameter '{key}'")
    return partial(schema.factory, **values)


def build(kind: Kind, spec: Spec, *, besides: Iterable[str] = (), from_data: bool = False) -> Any:
    """Make a plugin (anything but a model, which is bound and then called with its input's shape).

    from_data: whether the spec was not written by the user but read from a checkpoint or the like.

    Raises: as bind; BadParameter for a value that the plugin refuses; BadPlugin when it cannot
    import what it needs, or as refuse_code.

    >>> from quintain.bench.api import registry
    >>> attack = registry.build("attacks", {"name": "pgd", "steps": 20, "loss": "margin"})
    >>> attack.steps, attack.loss
    (20, Margin())
    >>> registry.build("attacks", {"name": "pgd", "step": 20})
    Traceback (most recent call last):
        ...
    quintain.bench.api.errors.BadParameter: attack 'pgd' has no parameter 'step'; ...
    """
    if from_data:
        refuse_code(spec)
    factory = bind(kind, spec, besides=besides)
    try:
        return factory()
    except ImportError as error:
        raise BadPlugin(f"{singular(kind)} '{_split(kind, spec)[0]}': {error}") from error
    except QuintainError:
        raise
    except (Exception, SystemExit) as error:  # the plugin's own code
        label = f"{singular(kind)} '{_split(kind, spec)[0]}'"
        raise BadParameter(f"{label}: {type(error).__name__}: {reason(error)}") from error


def _beside(kind: Kind, key: str) -> str:
    """Say that a parameter given to an attack is set beside the attacks, if it is such a one."""
    shared = key if key in _BESIDE else synonym(key, _BESIDE)
    if kind != "attacks" or shared is None:
        return ""
    return f"; '{shared}' is set once for all attacks, beside them;"


def through(kind: Kind, spec: Spec, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec with another innermost gradient source.

    Raises: BadParameter when it takes no gradient source.
    """
    name, given = _split(kind, spec)
    if "gradient" in hyperparameters(kind, name):
        inner = given.get("gradient")
        wrapped = source if inner is None else through("gradients", inner, source)
        return {"name": name, **given, "gradient": wrapped}
    if kind == "gradients":
        return source
    raise BadParameter(f"{singular(kind)} '{name}' follows no gradient")


def hyperparameters(kind: Kind, name: str) -> tuple[str, ...]:
    """Name the hyper-parameters that a plugin takes."""
    return tuple(schema_of(find(kind, name)).accepted)


def parameters(kind: Kind, name: str) -> dict[str, tuple[Any, Any]]:
    """The hyper-parameters that a plugin takes: name -> (annotation, default).

    The default is `inspect.Parameter.empty` where one must be given.

    >>> from quintain.bench.api import registry
    >>> registry.parameters("attacks", "deepfool")["steps"]
    (<class 'int'>, 50)
    """
    schema = schema_of(find(kind, name))
    given = inspect.signature(schema.factory).parameters
    return {key: (annotation, given[key].default) for key, annotation in schema.accepted.items()}


def _available(kind: Kind) -> dict[str, Plugin]:
    if kind not in KINDS:
        raise UnknownPlugin(f"unknown kind of plugin '{kind}'{closest(kind, KINDS)}")
    user_files = {name: one for (of, name), one in _local.items() if of == kind}
    return {**_installed(kind), **user_files}


@cache
def _installed(kind: Kind) -> dict[str, Plugin]:
    """What the installed distributions bring. To read it takes longer than all other look-ups."""
    found: dict[str, Plugin] = {}
    releases: dict[int, tuple[str, str]] = {}  # each is read from the disk, so only once
    for entry in metadata.entry_points(group=f"quintain.{kind}"):
        if id(entry.dist) not in releases:
            releases[id(entry.dist)] = _release(entry.dist)
        distribution, version = releases[id(entry.dist)]
        plugin = Plugin(kind, entry.name, distribution, entry.value, release=version)
        taken = found.get(entry.name)
        if taken is not None and taken != plugin:
            raise DuplicatePlugin(
                f"{singular(kind)} '{entry.name}' is defined twice: "
                f"by {taken.source} ({taken.target}) and by {distribution} ({entry.value})"
            )
        found[entry.name] = plugin
    return found


@cache
def _installed_targets() -> dict[str, Plugin]:
    return {one.target: one for kind in KINDS for one in _installed(kind).values()}


def _release(distribution: metadata.Distribution | None) -> tuple[str, str]:
    """Name and version of what an entry point belongs to."""
    if distribution is None:
        return "unknown distribution", ""
    return distribution.name, distribution.version


def _split(kind: Kind, spec: Spec) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise BadParameter(
            f"{singular(kind)} must be a name or a table with a 'name', not {spec!r}"
        )
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}
