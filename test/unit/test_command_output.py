"""Output paths are tried before work begins and written whole or not at all; results fit a narrow terminal."""

import os
from pathlib import Path

import pytest

import jepa_ros
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import after_summary, prepare_file, prepare_out, removed_if_refused
from jepa_ros.reporting.result import format_table, print_result
from jepa_ros.text_files import atomic_path, write_atomically


@pytest.mark.parametrize("name", ["new", "new/deep/er", "."])
def test_a_writable_output_directory_is_accepted_and_nothing_is_left(tmp_path, name):
    assert prepare_out(tmp_path / name) == tmp_path / name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "deep/" + "x" * 300])
def test_an_unwritable_output_directory_is_refused_and_left_unchanged(tmp_path, name):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="--out .*cannot be written to .*; give a directory that can"):
        prepare_out(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        prepare_out(tmp_path / "out")


def test_checking_an_output_file_does_not_change_it(tmp_path):
    (tmp_path / "table.md").write_text("old")
    assert prepare_file(tmp_path / "table.md").read_text() == "old"
    assert not prepare_file(tmp_path / "new" / "table.md").parent.exists()
    with pytest.raises(InputError, match="--table .*: is a directory; give the name of a file"):
        prepare_file(tmp_path, "--table")
    with pytest.raises(InputError, match="cannot be written to"):
        prepare_file(tmp_path / "table.md" / "below")


def test_a_file_is_replaced_atomically(tmp_path):
    path = write_atomically(tmp_path / "new" / "a.txt", "first")
    with pytest.raises(KeyError), atomic_path(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "first"
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_result_has_aligned_lines_and_the_written_paths(capsys, tmp_path):
    lines = [("score", 0.123456), ("reached in time", "19 of 20"), "all bags are complete " * 6]
    print_result("evaluate bag: one recording", lines, [tmp_path / "summary.json", tmp_path / "report.html"])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "evaluate bag: one recording"
    assert out[1] == "  score            0.1235" and out[2] == "  reached in time  19 of 20"
    assert len(out) == 7 and all(line.startswith("  all") or line.startswith("  bags") for line in out[3:4])
    assert out[-2:] == [f"wrote {tmp_path / 'summary.json'}", f"      {tmp_path / 'report.html'}"]


def test_a_result_table_is_indented_and_fits_80_columns(capsys):
    columns = ["metric", "the same in other words", "95 % confidence interval"]
    rows = [["prediction ratio at 5 steps", "x" * 30, "-0.1 to +0.2"]] * 2
    print_result("compare", [("note", 1)], [], (columns, rows))
    out = capsys.readouterr().out.splitlines()
    assert all(line.startswith("  ") for line in out[1:]) and max(map(len, out)) <= 80
    assert out[-1] == "  note  1" and out[2 if "interval" not in out[2] else 3].startswith("  ---")


def test_a_long_title_fits_80_columns(capsys):
    print_result(f"{', '.join(f'openarm_reach_{k}' for k in range(9))} compared with openarm_base", ["a line"])
    out = capsys.readouterr().out.splitlines()
    assert max(map(len, out)) <= 80 and "openarm_reach_8 compared with openarm_base" in " ".join(out)


def test_a_table_fits_its_width_without_losing_text():
    columns = ["metric", "run", "difference", "95 % confidence interval"]
    rows = [["prediction ratio at 5 steps", f"a run with a long name {k}", 0.5 * k, "-0.1 to +0.2"] for k in range(2)]
    rows.append(["x" * 40, "short", None, "0 to 0"])
    lines = format_table(columns, rows, 60)
    assert max(map(len, lines)) <= 60
    words = "".join("".join(lines).split())
    assert words.count("x") == 40 and "confidence" in words and "0.5" in words and "–" in words
    wide = format_table(columns, rows, 200)
    assert len(wide) == 2 + len(rows) and wide[2].split("  ")[0] == rows[0][0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no glyph")])
def test_a_report_that_fails_is_one_line_that_names_the_results(tmp_path, error):
    reason = (
        "No space left on device"
        if isinstance(error, OSError)
        else "RuntimeError: no glyph; JEPA_ROS_TRACEBACK=1 shows where"
    )
    with pytest.raises(InputError) as raised, after_summary(tmp_path / "summary.json"):
        raise error
    assert str(raised.value) == (
        f"the report could not be written ({reason}); the results are in {tmp_path / 'summary.json'}"
    )


def test_every_command_keeps_its_results_if_the_report_fails():
    """A module that writes both writes the report inside after_summary; the doctor's findings are also printed."""
    root = Path(jepa_ros.__file__).parent
    both = [p for p in root.rglob("*.py") if "write_summary(" in p.read_text() and '"report.html"' in p.read_text()]
    missing = {str(p.relative_to(root)) for p in both if "with after_summary(" not in p.read_text()}
    assert len(both) > 10 and missing == {"doctor/report.py"}


def test_what_a_refused_run_created_is_removed_unless_there_are_results(tmp_path):
    file = tmp_path / "a" / "b" / "options.json"

    def refuse(result: str):
        with pytest.raises(InputError, match="no"), removed_if_refused(file, "runs/*/*"):
            (file.parent / "runs" / "1").mkdir(parents=True)
            write_atomically(file, "{}")
            if result:
                write_atomically(file.parent / "runs" / "1" / result, "kept")
            raise InputError("no")

    refuse("")
    assert list(tmp_path.iterdir()) == []
    refuse("state")
    assert file.exists() and (file.parent / "runs" / "1" / "state").read_text() == "kept"
