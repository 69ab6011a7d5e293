"""The command line. Nothing heavy is imported before work starts."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .api.epsilon import NORMS
from .api.errors import BadParameter, QuintainError, closest, reason
from .api.plugins.plugin import KINDS
from .api.shared.interrupts import sigterm_interrupts
from .api.shared.safe_text import short
from .api.shared.streams import (
    discard,
    line_width,
    note,
    open_standard_streams,
    show,
)
from .report.formats import FORMATS, Format
from .store.privacy import private

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from .report.gathering import Gathered
    from .report.write import Tables
    from .suite.config import Suite
    from .suite.executors.scheduling import Executor
    from .suite.runner import Outcome

_HALF = 1500  # characters of an error that are shown from its beginning, and from its end
DONE, SOME_FAILED, BAD_INPUT, OUR_ERROR, INTERRUPTED = 0, 1, 2, 70, 130
_SUITES = "suites"
_COMPLETING = "_QUINTAIN_COMPLETE"  # click's, for prog_name quintain


class OneOf(click.Choice[str]):
    """One of a few words; another is answered with the nearest, or with all."""

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        """Raises: BadParameter."""
        if value not in self.choices:
            near = closest(value, self.choices) or f"; there are {', '.join(self.choices)}"
            raise BadParameter(f"no {param.name} '{value}'{near}")
        return value


KIND = OneOf([*KINDS, _SUITES])


def _complete_suite(ctx: Any, param: Any, incomplete: str) -> "list[CompletionItem]":
    """For the shell: bundled suites, and files."""
    from click.shell_completion import CompletionItem

    from .suite.config import bundled

    names = [CompletionItem(one) for one in bundled() if one.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def _complete_plugin(ctx: Any, param: Any, incomplete: str) -> "list[CompletionItem]":
    """For the shell: the names of plugins of every kind, or of a command's own."""
    from click.shell_completion import CompletionItem

    from .api import registry

    kinds = ["studies"] if ctx.info_name == "study" else KINDS
    names = {one.name for kind in kinds for one in registry.plugins(kind)}
    return [CompletionItem(one) for one in sorted(names) if one.startswith(incomplete)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(package_name="quintain", prog_name="quintain")
def quintain() -> None:
    """Adversarial-robustness benchmarks of image classifiers.

    Exit status: 0 all cells done, 1 some failed, 2 usage or bad input, 70 an error of our own,
    130 interrupted.
    """


@quintain.command()
@click.argument("suite", default="quickstart", shell_complete=_complete_suite)
@click.option("--out", type=click.Path(path_type=Path), help="Run directory. [runs/SUITE]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Instead of the suite's.")
@click.option("--training-seed", type=click.IntRange(0, 2**32 - 1), help="Of the networks alone.")
@click.option("--update", is_flag=True, help="Go on in a directory of an older version of SUITE.")
@click.option(
    "--jobs",
    metavar="N",
    help="Workers at once; auto: one a core, or a GPU. Same records. [1; of a cluster auto]",
)
@click.option(
    "--executor",
    type=OneOf(["processes", "ray", "slurm"]),
    default="processes",
    show_default=True,
    help="Who does the work: processes here, a Ray cluster, or Slurm jobs.",
)
@click.option("--address", help="Of a Ray cluster that runs already, such as auto.")
@click.option("--slurm", metavar="OPTIONS", help="Of Slurm, as partition=gpu,timeout_min=240.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; the summary alone.")
@click.option("--verbose", "-v", is_flag=True, help="All tables at the end, each attack a row.")
def run(
    suite: str,
    out: Path | None,
    device: str,
    seed: int | None,
    training_seed: int | None,
    update: bool,
    jobs: str | None,
    executor: str,
    address: str | None,
    slurm: str | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run SUITE, a TOML file or a bundled name, and write its tables and its page.

    Cells that are in the run directory are not computed again: an interrupted run resumes.
    """
    from .api.shared.options import read_jobs
    from .store.run_directory import refuse_strangers
    from .suite.config import read_suite
    from .suite.lookup import check_names

    elsewhere = executor != "processes"
    workers = read_jobs(("auto" if elsewhere else "1") if jobs is None else jobs)
    if address is not None and executor != "ray":
        raise BadParameter("--address is of a Ray cluster: say --executor ray as well")
    if slurm is not None and executor != "slurm":
        raise BadParameter("--slurm is of a Slurm cluster: say --executor slurm as well")
    parsed, text, folder = read_suite(suite)
    if seed is not None:
        parsed = parsed.model_copy(update={"seed": seed})
    if training_seed is not None:
        parsed = parsed.model_copy(update={"training_seed": training_seed, "seeds": None})
    out = out or Path("runs") / parsed.folder_name
    check_names(parsed, suite, folder)
    trainings = _trainings(parsed, out)
    for _, directory in trainings:
        refuse_strangers(directory)
    if not quiet:
        note(f"quintain: suite {parsed.name}, into {out}")

    from .api.paths import usable_cache
    from .api.shared.options import parse_device
    from .api.shared.progress_bars import be_quiet
    from .suite.runner import run_suite

    where = parse_device(device, elsewhere=elsewhere)
    be_quiet(quiet)
    failed = 0
    for one, directory in trainings:
        workplace = _executor(executor, address or slurm or "", workers, where, one, directory)
        failed += _show_outcome(  # which is not kept: it holds a run's records in memory
            run_suite(
                one,
                text,
                suite,
                folder,
                directory,
                where,
                usable_cache(),
                update=update,
                executor=workplace,
            ),
            directory,
            verbose=verbose,
        )
    if parsed.seeds is not None:
        _show_trainings(parsed.seeds, out)
    return SOME_FAILED if failed else DONE


def _executor(
    name: str, options: str, workers: int | None, device: Any, suite: "Suite", directory: Path
) -> "Executor":
    """Who does the work of a run. options: a Ray cluster's address, or what Slurm is given.

    workers: at most; None for as many as there is a place for.
    """
    from .suite.executors.processes import Processes
    from .suite.executors.scheduling import InProcess

    needs = suite.num_cpus, suite.num_gpus if device.type == "cuda" else 0.0
    if name == "ray":
        from .suite.executors.ray_cluster import RayCluster

        return RayCluster(options or None, workers, directory, needs)
    if name == "slurm":
        from .suite.executors.slurm import SlurmCluster, read_options

        return SlurmCluster(workers, read_options(options), directory, needs)
    several = Processes(workers, device)
    return several if several.concurrent else InProcess()


def _trainings(parsed: "Suite", out: Path) -> "list[tuple[Suite, Path]]":
    """What is to be run where: the suite, or it with each of its seeds."""
    if parsed.seeds is None:
        return [(parsed, out)]
    changes = [{"seeds": None, "training_seed": one} for one in parsed.seeds]
    places = [out / f"seed-{one}" for one in parsed.seeds]
    return [
        (parsed.model_copy(update=change), place)
        for change, place in zip(changes, places, strict=True)
    ]


def _show_trainings(seeds: Sequence[int], out: Path) -> None:
    """Write and show what training again changes."""
    from .report.seeds import trainings_summary, write_trainings

    table = write_trainings({one: out / f"seed-{one}" for one in seeds}, out / "seeds.csv")
    if table is not None:
        show(f"\n{trainings_summary(table)}\n\nThe table: {out / 'seeds.csv'}")


def _show_outcome(done: "Outcome", directory: Path, *, verbose: bool) -> int:
    """Show what came of a run, and write its page; return how many cells failed."""
    if done.tables is not None:
        _show_tables(done.tables, verbose=verbose)
        _write_page(directory, done.tables.found)
    show(
        f"\n{done.done} of {done.done + done.failed} cells done"
        + (f" ({done.reused} were there already)" if done.reused else "")
        + (f", {done.failed} failed" if done.failed else "")
        + f"; tables and records in {directory}",
    )
    return done.failed


def _show_tables(tables: "Tables", *, verbose: bool) -> None:
    """Show what came of a run: every attack's row, or a row a defended model."""
    if verbose:
        from .report.render import run_summary

        show(run_summary(tables.tradeoff, tables.leaderboard))
    else:
        from .report.summary import short_summary

        show(short_summary(tables.tradeoff, tables.leaderboard, line_width()))


def _write_page(directory: Path, found: "Gathered | None") -> None:
    """Write a run's page, where it is not there. That it cannot be written fails no run.

    found: what is in the run directory, where it was read already.
    """
    from .store.run_directory import RunDirectory

    file = RunDirectory(directory).page
    try:
        from .report.page.build import is_up_to_date, write_page

        if not is_up_to_date([directory], file):
            known = None if found is None else {directory: found}
            write_page([directory], file, lambda text: None, known)
    except Exception as error:  # whatever a page may stumble over, the records are there
        note(f"quintain: no page was written: {_our_error(error)}")
        return
    show(f"\nThe page: {file}")


@quintain.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--row", "rows", multiple=True, help='"MODEL x DEFENSE"; twice to compare two.')
@click.option("--epsilon", help="As the suite has it. [the leaderboard's]")
@click.option("--attack", default="worst-case", show_default=True, help="An attack's title.")
@click.option("--output", type=click.Path(path_type=Path), help="CSV of the examples that changed.")
@click.option(
    "--fail-if-worse",
    is_flag=True,
    help="Exit 1 where a row is worse in the second: one-sided exact McNemar, p < 0.05.",
)
def compare(
    directories: Sequence[Path],
    rows: Sequence[str],
    epsilon: str | None,
    attack: str,
    output: Path | None,
    fail_if_worse: bool,
) -> int:
    """Compare the rows of two runs on the same examples, or two rows of one run."""
    from .store.run_directory import read_manifest

    for one in directories:
        read_manifest(one)  # before what takes long to import

    from .report.compare import changed_examples, compare_runs, described
    from .store.atomic import write_text, writing
    from .store.spreadsheet import to_csv

    pairs = compare_runs(directories, rows, epsilon, attack)
    show(described(pairs))
    if output is not None:
        with writing(output):
            write_text(output, to_csv(changed_examples(pairs)))
        show(f"\nwrote {output}")
    worse = [one.title for one in pairs if one.is_worse]
    if fail_if_worse and worse:
        note(f"quintain: significantly worse: {', '.join(worse)}")
        return SOME_FAILED
    return DONE


@quintain.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="[DIRECTORY/report.html; report.html]"
)
def report(directories: Sequence[Path], output: Path | None) -> int:
    """Write one page that shows the runs in DIRECTORIES; it opens anywhere, without a network."""
    from .store.atomic import writing
    from .store.run_directory import RunDirectory, read_manifest

    if len(directories) == 1:
        read_manifest(directories[0])  # before what takes long to import
    default = RunDirectory(directories[0]).page if len(directories) == 1 else Path("report.html")
    file = output or default
    if file.suffix.lower() not in (".html", ".htm"):
        raise BadParameter(f"{file}: a page ends in .html")

    from .report.page.build import write_page

    with writing(file):
        size = write_page(directories, file, _note)
    show(f"wrote {file} ({size / 1e6:.1f} MB); open it in a browser, or send it")
    return DONE


@quintain.command(name="list")
@click.argument("kind", required=False, type=KIND, metavar="[KIND]")
@click.option("--table", is_flag=True, help="Attacks as a Markdown table: access, norms, passes.")
def list_plugins(kind: str | None, table: bool) -> int:
    """List the plugins of a KIND (models, attacks, defenses, datasets, ...), or suites, or all."""
    if table:
        if kind != "attacks":
            raise BadParameter("there is a table of attacks only: quintain list attacks --table")
        from .tools.attack_table import markdown

        show(markdown())
        return DONE
    _list_kinds(KIND.choices if kind is None else [kind])
    return DONE


def _list_kinds(kinds: Sequence[str]) -> None:
    """Show the plugins of some kinds, under a heading each where there are several."""
    from .api import registry
    from .suite.config import bundled

    for one in kinds:
        if len(kinds) > 1:
            show(f"{one}:")
        if one == _SUITES:
            rows = [(name, _description(name)) for name in bundled()]
        else:
            rows = [(found.name, found.summary()) for found in registry.plugins(one)]
            rows += registry.provider_lines(one)
        width = max((len(name) for name, _ in rows), default=0)
        line = line_width()
        room = None if line is None else line - width - 4
        for name, summary in rows:
            shown = summary if room is None else short(summary, max(room, 12))
            show(f"  {name:{width}}  {shown}".rstrip())


@quintain.command()
@click.argument("name", shell_complete=_complete_plugin)
@click.option(
    "--kind", type=KIND, metavar="KIND", help="Which kind is meant, where a name is one of several."
)
def info(name: str, kind: str | None) -> int:
    """Say what NAME, a plugin or a bundled suite, is and which parameters it takes."""
    from .tools.information import describe

    show(describe(name, kind))
    return DONE


@quintain.command()
@click.option("--model", required=True, help="A model plugin's name.")
@click.option("--defense", default="none", show_default=True, help="A defense plugin's name.")
@click.option("--dataset", default="digits", show_default=True, help="A dataset plugin's name.")
@click.option("--norm", type=OneOf(NORMS), default="Linf", show_default=True, help="Threat.")
@click.option("--epsilon", help='Radius to train against, such as "8/255".')
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="[MODEL-DEFENSE.safetensors]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PART.KEY=VALUE",
    help="A hyper-parameter, such as model.depth=20, defense.epochs=30, dataset.root=DIR.",
)
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path))
@click.option("--log-dir", type=click.Path(path_type=Path), help="Write curves for TensorBoard.")
@click.option("--fresh", is_flag=True, help="Restart where a training was interrupted.")
@click.option(
    "--initial",
    type=click.Path(path_type=Path),
    help="A checkpoint whose weights training begins with.",
)
def train(out: Path | None, **options: Any) -> int:
    """Train one model with one defense into a checkpoint (safetensors).

    The state of the training is kept beside the checkpoint (.partial): after an interruption the
    same command resumes from it.
    """
    from .training.train import train_checkpoint

    path = out or Path(f"{options['model']}-{options['defense']}.safetensors")
    show(train_checkpoint(path, **options))
    return DONE


@quintain.command()
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    metavar="NAME",
    help="Built in: cnn, resnet18, alexnet, resnet50, each -standard or -adversarial. "
    "[both of cnn; all on a GPU]",
)
@click.option(
    "--measure",
    "measurements",
    multiple=True,
    metavar="NAME",
    help="one-epsilon, curve-8, curve-32, queries. [all]",
)
@click.option("--model", help="A model plugin's name, to measure on a network of your own.")
@click.option("--defense", default="none", show_default=True, help="To train --model with.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Weights, instead of training.")
@click.option("--dataset", help="A dataset plugin's name. [digits, in the network's shape]")
@click.option("--epsilon", help='The largest of a curve, such as "8/255". [by the network]')
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--examples", type=click.IntRange(1), default=64, show_default=True, help="In curves."
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1),
    multiple=True,
    default=(32, 128),
    show_default=True,
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds.")
@click.option(
    "--whole",
    is_flag=True,
    help="Run the others at every epsilon of a curve, not at one whose time is multiplied.",
)
@click.option("--peers/--no-peers", default=True, help="Whether to time other libraries as well.")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True
)
@click.option("--set", "settings", multiple=True, metavar="PART.KEY=VALUE", help="As for `train`.")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path))
def bench(**options: Any) -> int:
    """Time PGD against a bare loop and other libraries, side by side on this machine.

    Writes benchmarks.csv. Foolbox, torchattacks, ART and adv-lib take part where installed.
    """
    from .tools.speed.command import Request, bench_command

    show(bench_command(Request(**options)))
    return DONE


@quintain.command(name="leaderboard")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", type=OneOf(FORMATS), help="By default by --output's ending.")
@click.option("--output", type=click.Path(path_type=Path), help="A file, instead of the terminal.")
def show_leaderboard(
    directories: Sequence[Path], format: Format | None, output: Path | None
) -> int:
    """Rank the models of one or more run directories."""
    from .report.joint import joint_leaderboard
    from .store.atomic import write_output

    text = joint_leaderboard(directories, format, output, _note)
    if output is None:
        show(text, end="")
    else:
        write_output(output, text)
        show(f"wrote {output}")
    return DONE


@quintain.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="A .png, .svg or .pdf file. [KIND.png]"
)
@click.option(
    "--kind",
    type=OneOf(["tradeoff", "curves", "heatmap", "queries", "transfer"]),
    default="tradeoff",
    show_default=True,
    help="What to draw.",
)
def plot(directories: Sequence[Path], output: Path | None, kind: str) -> int:
    """Draw run directories: by default clean against robust accuracy, and that against epsilon.

    Curves are by attack; heat maps of models by attacks, or of networks by networks (transfer);
    queries are of black-box attacks. Of the trade-off defenses whose labels differ only in a last
    KEY=NUMBER are a sweep, and joined by a line.
    """
    from .report.joint import plot_runs

    file = output or Path(f"{kind}.png")
    plot_runs(directories, file, _note, kind)
    show(f"wrote {file}")
    return DONE


def _studying(command: Any) -> Any:
    """The options of what looks at networks."""
    for option in reversed(
        (
            click.option("--model", help="A model plugin's name."),
            click.option(
                "--defense",
                "defenses",
                multiple=True,
                help="A defense plugin's name: each trains one network.",
            ),
            click.option(
                "--checkpoint",
                "checkpoints",
                multiple=True,
                type=click.Path(path_type=Path),
                help="Weights, instead of training: each is one network.",
            ),
            click.option("--dataset", help="A dataset plugin's name."),
            click.option(
                "--examples",
                "n_examples",
                type=click.IntRange(1),
                help="Of the test split. [as the study has it, mostly 60]",
            ),
            click.option("--norm", type=OneOf(NORMS), default="Linf", show_default=True),
            click.option(
                "--epsilon", default="8/255", show_default=True, help="That defenses train for."
            ),
            click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
            click.option("--device", default="auto", show_default=True),
            click.option("--out", type=click.Path(path_type=Path), help="[runs/NAME]"),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="PART.KEY=VALUE",
                help="A setting of model, defense, dataset or study.",
            ),
            click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path)),
        )
    ):
        command = option(command)
    return command


@quintain.command()
@click.argument("name", required=False, shell_complete=_complete_plugin)
@_studying
def study(name: str | None, out: Path | None, **options: Any) -> int:
    """Run the study NAME on networks, and write its figures and tables; without NAME list them.

    Without --model, --defense and --checkpoint it looks at small networks that it trains, which
    are kept in the cache.
    """
    if name is None:
        _list_kinds(["studies"])
        return DONE
    from .api import registry

    for plugin in options["plugins"]:
        registry.load_named(str(plugin), Path.cwd())
    registry.check_name("studies", name)
    return _study(name, out, options)


@quintain.command()
@click.argument("run_directory", required=False, type=click.Path(path_type=Path))
@click.option(
    "--suite",
    "suite_file",
    type=click.Path(path_type=Path),
    help="Of RUN_DIRECTORY, where it names files beside it. [its copy]",
)
@_studying
def explain(
    run_directory: Path | None, suite_file: Path | None, out: Path | None, **options: Any
) -> int:
    """Show where networks look before and after an attack.

    Of RUN_DIRECTORY: panels of the worst and the median adversarial examples of each cell, without
    attacking again. Without it: the study `attention`, on small networks that it trains or on those
    that are named.
    """
    if run_directory is None:
        if suite_file is not None:
            raise BadParameter("--suite is for a run directory: name one")
        return _study("attention", out or Path("runs/explain"), options)
    from .store.run_directory import read_manifest

    read_manifest(run_directory)
    from .studies.explain_run import explain_run

    files = explain_run(
        run_directory, out or run_directory / "explain", options["device"], suite_file
    )
    for one in files:
        show(str(one))
    return DONE


def _study(name: str, out: Path | None, options: dict[str, Any]) -> int:
    from .studies.run import StudyRequest, run_study

    out = out or Path("runs") / name
    result = run_study(StudyRequest(study=name, out=out, **options))
    for text in result.notes:
        show(text)
    files = ", ".join(
        [*(f"{one}.png" for one in result.figures), *(f"{one}.csv" for one in result.tables)]
    )
    show(f"\nwrote {files} into {out}")
    return DONE


@quintain.command()
@click.argument("plugin")
def check(plugin: str) -> int:
    """Run the conformance kit on PLUGIN: a name, or a Python file that registers some.

    It checks attacks, models, defenses, datasets and studies.
    """
    from .suite.lookup import plugins_named

    plugins_named(plugin)
    from .tools.conformance import check_plugin  # brings torch

    reports = check_plugin(plugin)
    for report in reports:
        show(report.text())
    return DONE if all(report.passed for report in reports) else SOME_FAILED


@quintain.group(no_args_is_help=False)
def new() -> None:
    """Write a plugin to start from."""


def _new(singular: str, use: str) -> None:
    """Add the command that begins a plugin of a kind. use: what is said of how to use it."""

    def write(name: str, out: Path | None) -> int:
        from .tools.scaffold import write_plugin

        path = write_plugin(singular, name, out)
        show(f"wrote {path}; try it with: quintain check {path}")
        show(use.format(file=path.name, name=path.stem.replace("_", "-")))
        return DONE

    write.__doc__ = f"Write a plugin, of the kind {singular}, that passes `quintain check`."
    where = click.Path(path_type=Path)
    command = click.option("--out", type=where, help="The file to write. [NAME.py]")(write)
    new.command(name=singular)(click.argument("name")(command))


_new("attack", 'in a suite: plugins = ["{file}"], and its name under [[attacks]]')
_new("model", 'in a suite: plugins = ["{file}"], and its name under [[models]]')
_new("defense", 'in a suite: plugins = ["{file}"], and its name under [[defenses]]')
_new("dataset", 'in a suite: plugins = ["{file}"], and dataset = "{name}"')
_new("study", "use: quintain study {name} --plugin {file}")


def _note(text: str) -> None:
    note(f"quintain: {text}")


def _description(suite: str) -> str:
    from .suite.config import read_suite

    return read_suite(suite)[0].description


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr, and so is one of ours."""
    open_standard_streams()
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        if any("\0" in one for one in given):
            raise BadParameter("an argument holds a NUL character")
        with sigterm_interrupts():
            status = quintain.main(args=given, prog_name="quintain", standalone_mode=False)
    except (QuintainError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        note(f"quintain: error: {_one_line(text)}")
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        note("quintain: interrupted; the same command resumes where this one stopped")
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.filename is not None:
            note(f"quintain: error: {_our_error(error)}")
            sys.exit(OUR_ERROR)
        discard(sys.stdout)  # a stream: what click itself prints goes there
        if error.errno == errno.EPIPE:
            sys.exit(DONE)
        note(f"quintain: error: cannot write: {reason(error)}")
        sys.exit(BAD_INPUT)
    except SystemExit as error:
        if _COMPLETING in os.environ:  # click has answered the shell
            raise
        note(f"quintain: error: a plugin or a library ended the program: SystemExit: {error.code}")
        sys.exit(BAD_INPUT)
    except Exception as error:
        note(f"quintain: error: {_our_error(error)}")
        sys.exit(OUR_ERROR)
    sys.exit(status if isinstance(status, int) else DONE)


def _one_line(text: str) -> str:
    """A text on one line, without the middle of one that nobody would read."""
    line = " ".join(text.split())
    return line if len(line) <= 2 * _HALF else f"{line[:_HALF]} ... {line[-_HALF:]}"


def _our_error(error: Exception) -> str:
    """Keep the traceback of an error that nobody foresaw in a file, and name it in one line."""
    said = _one_line(f"unexpected {type(error).__name__}: {error}")
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="quintain-error-",
            suffix=".txt",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(private("".join(traceback.format_exception(error))))
    except OSError:
        return f"{said}; its traceback could not be written"
    return f"{said}; please report it with its traceback, in {file.name}"
