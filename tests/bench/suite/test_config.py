import math
import re

import pytest

from quintain.bench.api.epsilon import Epsilon, parse_grid
from quintain.bench.api.errors import BadSuite
from quintain.bench.suite.config import bundled, parse_suite, read_suite

SUITE = """
dataset = "digits"
epsilons = ["8/255", 0.10, 1e-2]
[[models]]
name = "resnet"
width = 0.250
[[attacks]]
name = "pgd"
"""


def parsed(text=SUITE):
    return parse_suite(text, "mine.toml", "mine")


def refused(text):
    with pytest.raises(BadSuite) as caught:
        parsed(text)
    message = str(caught.value)
    assert message.startswith("mine.toml: ")
    assert "\n" not in message
    return message.removeprefix("mine.toml: ")


def test_what_is_left_out_has_a_default():
    suite = parsed()
    assert suite.name == "mine"
    assert (suite.norm, suite.seed, suite.search) == ("Linf", 0, "bracket")
    assert [one.title for one in suite.defenses] == ["none"]
    assert suite.n_examples is None
    assert suite.headline.text == "8/255"  # the middle of the grid
    assert suite.attacks[0].restarts == 1


def test_epsilons_keep_their_text_and_are_in_order():
    suite = parsed()
    assert [one.text for one in suite.epsilons] == ["1e-2", "8/255", "0.10"]
    assert [one.value for one in suite.epsilons] == [0.01, 8 / 255, 0.1]
    assert suite.resolved()["epsilons"] == ["1e-2", "8/255", "0.10"]


def test_other_keys_of_an_entry_are_the_plugins():
    suite = parsed()
    assert suite.models[0].spec == {"name": "resnet", "width": 0.25}
    assert suite.dataset.spec == {"name": "digits"}
    labelled = parsed(SUITE + 'label = "strong"\nrestarts = 2\nsteps = 9\n').attacks[0]
    assert labelled.spec == {"name": "pgd", "steps": 9}
    assert (labelled.title, labelled.restarts) == ("strong", 2)


def test_how_it_is_computed_is_no_part_of_what_a_suite_is():
    suite = parsed("num_cpus = 2\nnum_gpus = 1\nshard_examples = 7\n" + SUITE)
    assert (suite.num_cpus, suite.num_gpus, suite.shard_examples) == (2, 1.0, 7)
    assert suite.resolved() == parsed().resolved()
    assert "num_gpus" in refused("num_gpus = 0\n" + SUITE)


def test_the_resolved_suite_reads_back_as_the_same_suite():
    suite = parsed()
    again = type(suite).model_validate(suite.resolved(), strict=False)
    assert again.resolved() == suite.resolved()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("epsilons = [", "not valid TOML"),
        ("\x00", "not valid TOML"),
        ('defences = "none"', "unknown key 'defences'; did you mean 'defenses'?"),
        ("zzz = 1", "unknown key 'zzz'; known are name, "),
        ('seed = "1"', "seed: input should be a valid integer, not '1'"),
        ("seed = -1", "seed: .*greater than or equal to 0, not -1"),
        ("seed = true", "seed: "),
        ("n_examples = 0", "n_examples: .*greater than or equal to 1, not 0"),
        ("n_examples = 10.0", "n_examples: .*valid integer, not 10.0"),
        ('norm = "linf"', "norm: .*'Linf', 'L2' or 'L1', not 'linf'"),
        ('search = "binary"', "search: .*'bracket' or 'exhaustive', not 'binary'"),
        ("query_budget = 0", "query_budget: .*not 0"),
        ("batch_size = -4", "batch_size: .*not -4"),
        ("plugins = 3", "plugins: .*list, not 3"),
        ("save_adversarials = 1", "save_adversarials: .*boolean, not 1"),
        ("leaderboard_epsilon = 0.2", "leaderboard_epsilon 0.2 is not one of epsilons: 1e-2, "),
        ("leaderboard_epsilon = 0.031", "leaderboard_epsilon 0.031 is not one of epsilons"),
    ],
)
def test_a_wrong_line_at_the_top_is_refused(change, says):
    assert re.search(says, refused(change + "\n" + SUITE))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("[]", "epsilons must hold at least one value"),
        ("0.1", "epsilons must be a list, not 0.1"),
        ("[-0.1]", "epsilon -0.1 must be positive"),
        ("[0.0]", "epsilon 0.0 must be positive"),
        ("[nan]", "epsilon 'nan' is not a number"),
        ("[inf]", "epsilon 'inf' is not a number"),
        ('["8/0"]', "epsilon '8/0' is not a number"),
        ('["eight"]', "epsilon 'eight' is not a number"),
        ("[true]", "epsilon 'True' is not a number"),
        ("[[0.1]]", "is not a number"),
        ('[0.5, "1/2"]', "epsilons hold one value twice: 0.5 and 1/2"),
        ("[0.1, 0.10]", "epsilons hold one value twice: 0.1 and 0.10"),
    ],
)
def test_a_wrong_grid_is_refused(written, says):
    text = re.sub("epsilons = .*", f"epsilons = {written}", SUITE)
    assert f"epsilons: {says}" in refused(text) or says in refused(text)


def test_a_misspelt_key_is_named_rather_than_the_one_it_leaves_missing():
    assert "unknown key 'epsilon'; did you mean 'epsilons'?" in refused(
        SUITE.replace("epsilons", "epsilon")
    )


@pytest.mark.parametrize("key", ["dataset", "epsilons"])
def test_a_missing_key_is_named(key):
    assert refused(re.sub(f"{key} = .*", "", SUITE)) == f"key '{key}' is missing"


def test_faults_within_entries_say_where_they_are():
    two = SUITE + '[[attacks]]\nname = "fgsm"\nrestarts = 0\n'
    assert refused(two).startswith("attacks[2].restarts: ")
    assert refused(SUITE + "[[attacks]]\nsteps = 3\n") == "key 'attacks[2].name' is missing"
    listed = SUITE.replace('[[attacks]]\nname = "pgd"', "")
    assert refused("attacks = [3]\n" + listed).startswith("attacks[1]: ")
    assert refused("attacks = []\n" + listed).startswith("attacks: ")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[[attacks]]\nname = "pgd"\nsteps = 3', "two attacks are called 'pgd': give one a label"),
        ('[[models]]\nname = "alexnet"\nlabel = "resnet"', "two models are called 'resnet'"),
        ('[[attacks]]\nname = "worst-case"', "cannot be called 'worst-case'"),
        ('[[attacks]]\nname = "fgsm"\nlabel = "worst-case"', "cannot be called 'worst-case'"),
    ],
)
def test_names_that_the_tables_could_not_tell_apart_are_refused(more, says):
    assert says in refused(SUITE + more)


def test_a_bundled_suite_is_found_by_name_and_a_file_by_its_path(tmp_path):
    assert "quickstart" in bundled()
    suite, _, _ = read_suite("quickstart")
    assert suite.name == "quickstart"
    assert len(suite.epsilons) >= 8
    (tmp_path / "own.toml").write_text(SUITE)
    suite, text, folder = read_suite(str(tmp_path / "own.toml"))
    assert (suite.name, text, folder) == ("own", SUITE, tmp_path)


def test_a_suite_that_is_not_there_is_answered_with_what_there_is(tmp_path):
    with pytest.raises(BadSuite, match=r"no suite 'quikstart'.*did you mean 'quickstart'"):
        read_suite("quikstart")
    with pytest.raises(BadSuite, match="neither a file nor a bundled suite"):
        read_suite(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(BadSuite, match=r"latin.toml cannot be read"):
        read_suite(str(tmp_path / "latin.toml"))


def test_every_bundled_suite_is_sound():
    for name in bundled():
        suite = read_suite(name)[0]
        assert suite.description
        assert suite.headline in suite.epsilons


@pytest.mark.parametrize(
    ("written", "text", "value"),
    [("8/255", "8/255", 8 / 255), (0.1, "0.1", 0.1), (" 1 / 4 ", "1 / 4", 0.25), (1, "1", 1.0)],
)
def test_an_epsilon_is_read_exactly(written, text, value):
    one = Epsilon.parse(written)
    assert (one.text, one.value) == (text, value)
    assert math.isfinite(one.value)


def test_a_grid_of_parsed_epsilons_stays_as_it_is():
    grid = parse_grid(["2/255", 0.5])
    assert parse_grid(list(grid)) == grid


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_file_of_a_windows_editor(write_suite, mark, newline):
    path = write_suite(name="windows.toml")
    plain = read_suite(str(path))
    path.write_bytes(mark + path.read_bytes().replace(b"\n", newline))
    suite, text, _ = read_suite(str(path))
    assert suite == plain[0]
    assert text == plain[1]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ('attacks = ["fgsm", "pgd"]', '[[attacks]]\nname = "fgsm"\n[[attacks]]\nname = "pgd"'),
        ('attacks = ["fgsm", { name = "pgd", steps = 3 }]',
         '[[attacks]]\nname = "fgsm"\n[[attacks]]\nname = "pgd"\nsteps = 3'),
        ('attacks = "fgsm"', '[[attacks]]\nname = "fgsm"'),
        ('[attacks]\nname = "fgsm"', '[[attacks]]\nname = "fgsm"'),
        ('defenses = ["none", "jpeg"]', '[[defenses]]\nname = "none"\n[[defenses]]\nname = "jpeg"'),
    ],
)  # fmt: skip
def test_a_name_works_where_a_table_does(short, long):
    top = 'dataset = "digits"\nepsilons = [0.1]\n'
    models = '[[models]]\nname = "resnet"\n'
    short_models = 'models = ["resnet"]\n'
    expected = parse_suite(top + models + long, "a.toml", "a")
    assert parse_suite(top + short_models + short, "a.toml", "a") == expected


@pytest.mark.parametrize(
    ("key", "meant"),
    [("eps = [0.1]", "epsilons"), ("n_queries = 3", "query_budget"), ("bs = 3", "batch_size"),
     ("n_ex = 3", "n_examples"), ("target = 3", "targets")],
)  # fmt: skip
def test_other_names_of_keys(key, meant):
    text = f'dataset = "digits"\nepsilons = [0.1]\nmodels = ["resnet"]\n{key}\n'
    with pytest.raises(BadSuite, match=f"did you mean '{meant}'"):
        parse_suite(text, "a.toml", "a")


def test_paths_of_windows_in_a_suite(write_suite, tmp_path, quintain):
    """Backslashes separate folders everywhere, unless a file has that very name."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/mine.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    plugin = (
        "from quintain.bench.api import registry\n"
        '@registry.attack("{0}")\n'
        "class A:\n"
        '    access = "decision"\n'
        "    def run(self, problem):\n"
        "        return problem.x\n"
    )
    (tmp_path / "nets/attack.py").write_text(plugin.format("nested"))
    suite, _, folder = read_suite(
        str(
            write_suite(
                plugins="['nets\\attack.py']",
                models="\n[[models]]\nname = 'nets\\mine.py:make'\ntrain = false\n",
                attacks='\n[[attacks]]\nname = "nested"\n',
            )
        )
    )
    from quintain.bench.api.shared.path_names import relative_to
    from quintain.bench.suite.plan import make_plan

    with relative_to(folder):
        plan = make_plan(suite, "tiny.toml", folder)
    assert plan.defended_models[0].model.title == "nets\\mine.py:make"
    (tmp_path / "nets\\attack.py").write_text(plugin.format("literal"))
    from quintain.bench.api.shared.path_names import located

    assert located("nets\\attack.py", tmp_path).read_text("utf-8") == plugin.format("literal")
