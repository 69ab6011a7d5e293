"""One vocabulary: the field's words, and none of our own, in code, docstrings, messages and pages.

Ordinary English words are refused as identifiers only. Each line of WORDS says what to write.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bench", "attacks", "defenses", "models", "tests", "docs")
PAGES = ("README.md", "CONTRIBUTING.md")

WORDS = {  # a pattern, in any case -> the field's term
    r"(a|an|each|every|first|nearest) find(?! out)": "adversarial example",
    r"finds? (that|inside|of) (is|are|certified)": "adversarial example",
    r"claims?": "candidate",
    r"(whole|a|each|the|one|another|every) (try|tries)(?! to)": "attempt, full-budget attempt",
    r"second looks?": "check, re-evaluation",
    r"refut(e|es|ed|ing)": "not reproduced",
    r"jury|juries|jurors?": "independent vote",
    r"verdicts?": "prediction",
    r"sorties?": "attack-model pair",
    r"(hang|hangs|hung) on": "depends on, is seeded by",
    r"hunting": "gradient model",
    r"doubts": "sanity checks",
    r"foreign": "third-party",
    r"oblivious": "detector-unaware",
    r"may reject": "has a reject option",
    r"surplus(es)?": "rejection margin",
    r"lens|lenses": "surrogate gradient",
    r"anew": "again, restart",
    r"cut off": "interrupted",
    r"budget-ended|refuted-adversarials": "query-budget-exhausted, not-reproduced",
    r"desks?|logbooks?|ledgers?": "session, manifest, counters",
    r"survey|standings": "resume, table writer",
    r"apprentices?": "surrogate networks",
    r"subjects?": "defended model",
    r"slots": "batch",
    r"pursuit|album|spool": "loop, in-memory store, disk store",
}
IDENTIFIERS = {  # a part of an identifier -> the field's term; in sentences these are English
    "finds": "adversarial_examples",
    "lead": "margin",
    "leads": "margins",
    "hold": "verified",
    "holds": "verified",
    "tell": "return",
    "tells": "return",
    "told": "return",
    "hear": "add",
    "settle": "flush",
    "walk": "boundary_search",
    "walks": "boundary_search",
    "pace": "step_multiplier",
    "brief": "single_step",
    "member": "stage",
    "members": "stages",
    "approach": "adaptation",
    "nature": "traits",
    "book": "outcomes",
    "judge": "verifier",
}
# A file, and words that mean something else there, or that are what older versions said.
ALLOWED = {
    "tests/test_words.py": {*WORDS, *IDENTIFIERS},
    "bench/store/old_names.py": {*WORDS, *IDENTIFIERS},
    "tests/bench/store/test_old_names.py": {*WORDS, *IDENTIFIERS},
    "tests/bench/api/test_old_words.py": {*WORDS, *IDENTIFIERS},
    "bench/api/attack.py": {r"lens|lenses"},  # the old name of one release
    "attacks/third_party/whole.py": {"foreign"},  # names a stream of random numbers
    "tests/test_imports.py": {"walk"},  # ast.walk
    "tests/defenses/test_ensemble.py": {"members", "member"},
    "bench/api/plugins/source_digest.py": {"walk"},  # ast.walk
    "defenses/ensemble.py": {"members", "member"},  # an ensemble has members
    "models/third_party/torchvision.py": {"members"},  # of an enumeration
}

_WORDS = [(one, re.compile(rf"(?<![\w`.-])(?:{one})(?![\w-])", re.IGNORECASE)) for one in WORDS]
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def forbidden(text, *, python):
    """The forbidden words of a text: (line, what was found, what to write, the pattern)."""
    found = []
    if python:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                parts = {one.lower() for one in _PARTS.findall(token.string)}
                if token.string.startswith("test_"):  # a sentence
                    parts = set()
                found += [
                    (token.start[0], token.string, IDENTIFIERS[one], one)
                    for one in sorted(parts & IDENTIFIERS.keys())
                ]
                text_of_name = " ".join(_PARTS.findall(token.string))
                found += [
                    (token.start[0], token.string, WORDS[one], one)
                    for one, pattern in _WORDS
                    if text_of_name != token.string and pattern.search(text_of_name)
                ]
    for number, line in enumerate(text.splitlines(), start=1):
        for one, pattern in _WORDS:
            found += [(number, hit[0], WORDS[one], one) for hit in pattern.finditer(line)]
    return sorted(found)


def found_in(root):
    """All forbidden words of a tree, a line each."""
    files = [
        path
        for folder in FOLDERS
        for ending in ("*.py", "*.md", "*.toml", "*.txt")
        for path in sorted((root / folder).rglob(ending))
    ]
    lines = []
    for path in [*files, *(root / page for page in PAGES)]:
        name = path.relative_to(root).as_posix()
        allowed = ALLOWED.get(name, set())
        for number, hit, instead, one in forbidden(path.read_text(), python=path.suffix == ".py"):
            if one not in allowed:
                lines.append(f"{name}:{number}: {hit}: write {instead}")
    return lines


def test_the_words_are_the_fields():
    assert found_in(ROOT) == []


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("x = claim", "claim"),
        ('"""A find that counts."""', "A find"),
        ("def f():\n    # the jury\n    pass", "jury"),
        ("raise E('the verdict is out')", "verdict"),
        ("class OldLedger:\n    pass", "OldLedger"),
        ("members = 1", "members"),
        ("self.lead = 2", "lead"),
        ("tell_all()", "tell_all"),
    ],
)
def test_a_planted_word_is_found(text, hit):
    assert hit in [one[1] for one in forbidden(text, python=True)]


def test_a_planted_word_is_found_on_a_page_and_in_a_tree(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("Fine.\nIt hangs on the seed.\n")
    for page in PAGES:
        (tmp_path / page).write_text("Fine.\n")
    assert found_in(tmp_path) == [
        "docs/page.md:2: hangs on: write depends on, is seeded by",
    ]


def test_ordinary_english_is_not_refused():
    text = '"""This approach leads to a walk; members tell what holds by nature, and try to."""'
    assert forbidden(text, python=True) == []
