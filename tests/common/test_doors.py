"""Doors: names that lead to other people's code."""

import pickle

import pytest

from paravt_env.common.doors import check_name, chosen, is_door, opened


def test_a_name_of_the_table_is_its_entry_and_a_door_is_what_the_file_holds(tmp_path):
    (tmp_path / "mine.py").write_text("def twice(x):\n    return 2 * x\n")
    assert chosen("rule", "one", {"one": 1}) == 1
    assert chosen("rule", f"{tmp_path / 'mine.py'}:twice", {})(4) == 8
    assert is_door("a.b:c") and not is_door("c") and not is_door(None)


def test_a_file_is_run_once_and_what_it_defines_can_be_pickled(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Rule:\n    pass\n")
    rule = opened("rule", f"{path}:Rule")
    assert opened("rule", f"{path}:Rule") is rule
    assert pickle.loads(pickle.dumps(rule)) is rule


def test_a_file_that_was_edited_is_run_again(tmp_path):
    """An evaluation records a digest of the code that it names, and plays that code."""
    path = tmp_path / "mine.py"
    for value in (1, 2):
        path.write_text(f"value = {value}\n")
        assert opened("rule", f"{path}:value") == value


def test_two_files_of_one_name_are_two_modules(tmp_path):
    found = []
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"value = {value}\n")
        found.append(opened("rule", f"{tmp_path / folder / 'mine.py'}:value"))
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("onne", "did you mean 'one'"),
        ("nowhere.py:rule", "cannot be imported"),
        ("no.such.module:rule", "cannot be imported"),
        ("math:rule", "there is no 'rule' in 'math'"),
    ],
)
def test_what_is_not_there_is_said(name, said):
    with pytest.raises(ValueError, match=said):
        chosen("rule", name, {"one": 1})


def test_a_file_with_an_error_leaves_no_half_module(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("value = 1\nraise ImportError('no such thing')\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            opened("rule", f"{path}:value")


def test_a_check_opens_nothing():
    check_name("rule", "no.such.module:rule", {})
    with pytest.raises(ValueError, match="not one of"):
        check_name("rule", "two", {"one": 1})
