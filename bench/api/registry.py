"""Plugins: found by entry point, by decorator, or in a file that a suite names.

Nothing is imported until it is asked for, so listing plugins does not import torch. A plugin is a
factory: its keyword parameters are its hyper-parameters.
"""

import inspect
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
    UnknownPlugin,
    closest,
    errors_as,
    synonym,
)
from .plugins import third_party, user_files
from .plugins.binding import converted, schema_of
from .plugins.permission import code_named, parts, permitted, refuse_code
from .plugins.plugin import KINDS, Plugin, Spec
from .plugins.source_digest import source_digest
from .shared.path_names import located

_BESIDE = ("epsilons", "norm", "seed", "targets", "batch_size")
F = TypeVar("F", bound=Callable[..., Any])
_local: dict[tuple[str, str], Plugin] = {}


def register(kind: str, name: str) -> Callable[[F], F]:
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
                f"{plugin.title} is defined twice: in {taken.source} and in {where}"
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
study = partial(register, "studies")


def load_file(path: Path) -> tuple[Plugin, ...]:
    """Run a plugin file once and return what it registered.

    Raises: BadPlugin when it is missing, fails, or registers nothing; DuplicatePlugin.
    """
    path = user_files.absolute(path)
    permitted.add(path)
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
    code = code_named(name)
    if code is None:
        load_file(located(name, folder))
        return
    if isinstance(code, Path):
        user_files.module_name(code)
    permitted.add(code)


def check_named(name: str, folder: Path) -> None:
    """Look whether the file that `load_named` would run is there, running nothing.

    Raises: BadPlugin.
    """
    code = code_named(name) or located(name, folder)
    if isinstance(code, Path):
        user_files.module_name(user_files.absolute(code))


def code_of(described: Any) -> list[str]:
    """Name the code of all plugins that a spec, or a plugin's configuration, names at any depth."""
    codes: set[str] = set()
    for one in parts(described):
        if isinstance(one, str):
            codes |= {plugin.code for (_, name), plugin in _local.items() if name == one}
            found = user_files.reference(one)
            codes |= {source_digest(found[0])} if found and found[0].is_file() else set()
        elif isinstance(one, Mapping) and {"kind", "plugin"} <= one.keys():
            codes.add(find(one["kind"], one["plugin"]).code)
    return sorted(codes)


def names_files(spec: Any) -> bool:
    """Whether a spec names plugins in files of the user's at any depth."""
    texts = [one for one in parts(spec) if isinstance(one, str)]
    return any(user_files.reference(one) or one in {name for _, name in _local} for one in texts)


@contextmanager
def temporary() -> Iterator[None]:
    """Forget at the end whatever was registered or found installed within."""
    before, allowed = dict(_local), set(permitted)
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
        permitted.intersection_update(allowed)
        _forget_installed()


def _forget_installed() -> None:
    _installed.cache_clear()
    _installed_targets.cache_clear()
    third_party.forget()


def plugins(kind: str) -> tuple[Plugin, ...]:
    """All plugins of a kind, by name.

    Raises: DuplicatePlugin when two distributions bring the same name.

    >>> from quintain.bench.api import registry
    >>> [one.name for one in registry.plugins("datasets")][:4]
    ['cifar10', 'cifar100', 'digits', 'fashion-mnist']
    """
    return tuple(one for _, one in sorted(_available(kind).items()))


def find(kind: str, name: str) -> Plugin:
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
        return third_party.provide(kind, name)
    raise _unknown(kind, name, known)


def check_name(kind: str, name: str) -> None:
    """Look whether a plugin of this name may be there, importing nothing: a command's first look.

    Of a name with a colon it is seen whether the file is there, or what the prefix stands for.

    Raises: as find.
    """
    known = _available(kind)
    if name in known:
        return
    if ":" in name:
        third_party.check_name(kind, name)
    else:
        raise _unknown(kind, name, known)


def _unknown(kind: str, name: str, known: Iterable[str]) -> UnknownPlugin:
    listed = [*sorted(known), *(f"{prefix}:NAME" for prefix in third_party.prefixes(kind))]
    return UnknownPlugin(
        f"unknown {KINDS[kind].singular} '{name}'{closest(name, known) or '.'} "
        f"There are: {', '.join(listed)}"
    )


def provider_lines(kind: str) -> list[tuple[str, str]]:
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


def bind(kind: str, spec: Spec, *, besides: Iterable[str] = ()) -> Callable[..., Any]:
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
    label, accepted = plugin.title, schema.accepted
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in accepted:
            takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            near = _beside(kind, key) or closest(key, [*accepted, *besides]) or ";"
            raise BadParameter(f"{label} has no parameter '{key}'{near} {takes}")
        values[key] = converted(label, key, value, schema, build)
    for key, (_, default) in accepted.items():
        if default is inspect.Parameter.empty and key not in values:
            raise BadParameter(f"{label} needs the parameter '{key}'")
    return partial(schema.factory, **values)


def build(kind: str, spec: Spec, *, besides: Iterable[str] = (), from_data: bool = False) -> Any:
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
    label = f"{KINDS[kind].singular} '{_split(kind, spec)[0]}'"
    with errors_as(BadParameter, label):
        try:
            return factory()
        except ImportError as error:
            raise BadPlugin(f"{label}: {error}") from error


def _beside(kind: str, key: str) -> str:
    """Say that a parameter given to an attack is set beside the attacks, if it is such a one."""
    shared = key if key in _BESIDE else synonym(key, _BESIDE)
    if kind != "attacks" or shared is None:
        return ""
    return f"; '{shared}' is set once for all attacks, beside them;"


def through(kind: str, spec: Spec, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec with another innermost gradient source.

    Raises: BadParameter when it takes no gradient source.
    """
    name, given = _split(kind, spec)
    if "gradient" in parameters(kind, name):
        inner = given.get("gradient")
        wrapped = source if inner is None else through("gradients", inner, source)
        return {"name": name, **given, "gradient": wrapped}
    if kind == "gradients":
        return source
    raise BadParameter(f"{KINDS[kind].singular} '{name}' follows no gradient")


def parameters(kind: str, name: str) -> Mapping[str, tuple[Any, Any]]:
    """The hyper-parameters that a plugin takes: name -> (annotation, default).

    The default is `inspect.Parameter.empty` where one must be given.

    >>> from quintain.bench.api import registry
    >>> registry.parameters("attacks", "deepfool")["steps"]
    (<class 'int'>, 50)
    """
    return schema_of(find(kind, name)).accepted


def _available(kind: str) -> dict[str, Plugin]:
    if kind not in KINDS:
        raise UnknownPlugin(f"unknown kind of plugin '{kind}'{closest(kind, KINDS)}")
    user_files = {name: one for (of, name), one in _local.items() if of == kind}
    return {**_installed(kind), **user_files}


@cache
def _installed(kind: str) -> dict[str, Plugin]:
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
                f"{plugin.title} is defined twice: "
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


def _split(kind: str, spec: Spec) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise BadParameter(
            f"{KINDS[kind].singular} must be a name or a table with a 'name', not {spec!r}"
        )
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}
