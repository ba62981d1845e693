"""The last lines of `paravt eval`, `compare` and `report`: where things are, what to type next.

The commands that they name can be typed as they are, also where a folder's name has a space.
"""

import shlex

from support.evaluations import report, row

from train.cli import main
from train.commands.evaluation import compared, finished


def written(folder, *rows):
    report(*rows).save(folder / "after.json")
    return folder


def commands(text):
    """The lines below "next:", as a shell reads them."""
    lines = text.partition("next:\n")[2].splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def test_an_evaluation_names_its_files_and_the_viewer(tmp_path):
    folder = written(tmp_path / "a run", row())
    said = finished(folder / "after.json", [folder / "frames.svg", folder / "report.html"])
    assert said.splitlines()[:4] == [
        f"rows: {folder}/after.json",
        f"page: {folder}/frames.svg",
        f"page: {folder}/report.html",
        "next:",
    ]
    assert commands(said) == [
        ["paravt", "view", str(folder)],
        ["paravt", "compare", "OTHER_RUN", str(folder)],
    ]


def test_kept_tokens_are_counted_with_their_size(tmp_path):
    folder = written(tmp_path, row())
    (folder / "after.tokens").mkdir()
    for name in "ab":
        (folder / "after.tokens" / f"{name}.json.gz").write_bytes(bytes(1250))
    said = finished(folder / "after.json", []).splitlines()
    assert said[1] == "tokens of 2 rollouts: 2.5 kB (evaluation.keep_tokens)"


def test_a_comparison_names_what_it_wrote_or_how_to_write_it(tmp_path, capsys):
    folders = [written(tmp_path / "first run", row()), written(tmp_path / "second", row())]
    view = ["paravt", "view", *map(str, folders)]
    assert main(["compare", *map(str, folders)]) == 0
    again, viewer = commands(capsys.readouterr().out)
    assert again == ["again", "with", "--html", "compare.html"] and viewer == view
    page = tmp_path / "c.html"
    assert main(["compare", *map(str, folders), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert f"\nwritten: {page}\n" in said and commands(said) == [view]
    assert page.is_file()


def test_one_folder_compared_with_itself_is_viewed_once(tmp_path):
    path = tmp_path / "after.json"
    assert commands(compared([path, path], [path])) == [["paravt", "view", str(tmp_path)]]


def test_a_report_names_the_viewer(tmp_path, capsys):
    folder = written(tmp_path / "a run", row())
    assert main(["report", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"page: {folder}/report.html\n")
    assert commands(said) == [["paravt", "view", str(folder)]]
