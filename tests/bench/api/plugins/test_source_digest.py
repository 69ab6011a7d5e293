"""The code of a plugin is what its file and the local modules that it imports hold."""

import sys

import pytest

from quintain.bench.api.plugins.source_digest import installed_digest, is_local, source_digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package under development: attack.py imports core.py, whose function imports deep.py."""
    folder = tmp_path / "lab_attacks"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "attack.py").write_text("from .core import walk\nimport torch\n")
    (folder / "core.py").write_text("def walk():\n    from lab_attacks import deep\n")
    (folder / "deep.py").write_text("SIZE = 1\n")
    (folder / "other.py").write_text("SIZE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [one for one in sys.modules if one.startswith("lab_attacks")]:
        del sys.modules[name]


@pytest.mark.parametrize("changed", ["attack", "core", "deep", "__init__"])
def test_every_module_that_is_imported_counts(changed, package):
    before = installed_digest("lab_attacks.attack")
    assert before == installed_digest("lab_attacks.attack")
    file = package / f"{changed}.py"
    file.write_text(file.read_text() + "# changed\n")
    assert installed_digest("lab_attacks.attack") != before


def test_what_is_not_imported_does_not_count(package):
    before = installed_digest("lab_attacks.attack")
    (package / "other.py").write_text("SIZE = 2\n")
    assert installed_digest("lab_attacks.attack") == before
    assert "lab_attacks" not in sys.modules or not hasattr(sys.modules["lab_attacks"], "deep")


def test_a_file_and_what_lies_beside_it(tmp_path):
    (tmp_path / "mine.py").write_text("import helper\nimport json\n")
    (tmp_path / "helper.py").write_text("A = 1\n")
    before = source_digest(tmp_path / "mine.py")
    (tmp_path / "helper.py").write_text("A = 2\n")
    assert source_digest(tmp_path / "mine.py") != before


def test_released_packages_and_the_standard_library_are_named_by_their_version():
    for name in ("torch", "json", "numpy.linalg"):
        assert installed_digest(name) is None


def test_a_package_that_was_installed_from_a_folder_is_local(tmp_path):
    folder = tmp_path / "site-packages"
    origin = folder / "lab-1.0.dist-info"
    origin.mkdir(parents=True)
    (folder / "lab").mkdir()
    (folder / "lab" / "__init__.py").write_text("")
    (folder / "released.py").write_text("")
    (origin / "RECORD").write_text("lab/__init__.py,,\nlab-1.0.dist-info/RECORD,,\n")
    (origin / "direct_url.json").write_text('{"url": "file:///lab", "dir_info": {}}')
    assert is_local(folder / "lab" / "__init__.py")
    assert not is_local(folder / "released.py")


def test_a_file_that_cannot_be_parsed_or_imports_itself_has_a_name_too(tmp_path):
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "circle.py").write_text("import circle\n")
    for name in ("broken.py", "circle.py"):
        assert len(source_digest(tmp_path / name)) == 64


def test_an_edit_within_one_process_is_seen(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("A = 1\n")
    before = source_digest(file)
    file.write_text("A = 12\n")
    assert source_digest(file) != before
