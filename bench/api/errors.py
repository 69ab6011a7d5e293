"""What can go wrong that is not a bug of ours: each error is one line that names the remedy."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST = 200  # characters of a name that are looked at


class QuintainError(Exception):
    """A user's mistake or bad input. The command line prints it as one line and exits with 2."""


class UnknownPlugin(QuintainError, LookupError):
    """A name that no plugin of that kind has."""


class DuplicatePlugin(QuintainError):
    """Two plugins of one kind under one name."""


class BadPlugin(QuintainError):
    """A plugin that cannot be loaded."""


class BadParameter(QuintainError, ValueError):
    """A hyper-parameter that does not exist, or whose value cannot be used."""


class BadSuite(QuintainError):
    """A suite file that cannot be used."""


class BadData(QuintainError, ValueError):
    """Images or labels that cannot be used."""


class BadCheckpoint(QuintainError):
    """A checkpoint that is missing, damaged, or made for another network."""


class RunDirectoryError(QuintainError):
    """A run directory that cannot be written, or belongs to another suite."""


class AccessDenied(QuintainError, PermissionError):
    """An attack asked its victim for more than its access level allows."""


class CellError(QuintainError):
    """A cell that could not be computed. It is reported as failed, never as robust."""


def reason(error: BaseException) -> str:
    """Say in a few words on one line why something failed, such as a file that cannot be read."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(text.split()) or type(error).__name__


def one_line(error: BaseException) -> str:
    """An error in one line: the text of one of ours, of others with their type in front."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, QuintainError) else f"{type(error).__name__}: {text}"


@contextmanager
def errors_as(kind: type[QuintainError], title: str) -> Iterator[None]:
    """Within, whatever a plugin's or a library's own code raises becomes an error of ours.

    kind: of the error. title: what its one line begins with. Errors that are ours go on as they
    are.
    """
    try:
        yield
    except QuintainError:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{title}: {one_line(error)}") from error


_SYNONYMS = (  # what other libraries and papers call things, each line one thing
    ("epsilons", "epsilon", "eps", "max_eps", "radius", "linf", "epsilon_list"),
    ("steps", "n_iter", "num_iter", "nb_iter", "max_iter", "iterations", "iters", "num_steps"),
    ("steps", "nb_steps", "n_steps", "perturb_steps", "iter"),
    ("step_size", "alpha", "eps_step", "eps_iter", "stepsize", "rel_stepsize", "abs_stepsize"),
    ("restarts", "n_restarts", "num_restarts", "nb_restarts", "num_random_init", "restart"),
    ("random_start", "rand_init", "random_init", "rand_start"),
    ("query_budget", "n_queries", "max_queries", "num_queries", "budget", "queries"),
    ("norm", "p", "ord", "order", "lp", "distance", "threat_model"),
    ("images", "x", "inputs", "x_test", "data", "loader", "dataloader", "x_orig"),
    ("labels", "y", "y_test", "targets_true"),
    ("targets", "target", "y_target", "target_class", "target_labels", "criterion"),
    ("attack", "attacks", "attack_name", "attacks_to_run"),
    ("batch_size", "bs", "batchsize"),
    ("n_examples", "n_ex", "num_examples", "samples"),
    ("cuda", "gpu", "nvidia", "rocm", "hip"),
    ("least-likely", "least_likely", "ll", "leastlikely"),
)


def synonym(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the known names, in lower case, that stands for the same thing."""
    there = set(known)
    for alike in _SYNONYMS:
        if name.lower() in alike:
            for one in alike:
                if one in there and one != name.lower():
                    return one
    return None


def closest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of the known names, whatever its case.

    Before it looks at letters it knows what other libraries call a thing: `eps` is `epsilons`.
    """
    lowered = {one.lower(): one for one in known}
    same = synonym(name, lowered)
    if same is not None:
        return f"; did you mean '{lowered[same]}'?"
    typed = name[:_LONGEST].lower()  # the search takes as long as the square of the length
    near = difflib.get_close_matches(typed, list(lowered), n=1, cutoff=0.5)
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse what is none of a few words. Raises: BadParameter, naming the nearest and all."""
    words = tuple(known)
    if value not in words:
        near = closest(str(value), words)
        raise BadParameter(f"{name} = {value!r} is not one of {', '.join(words)}{near}")
