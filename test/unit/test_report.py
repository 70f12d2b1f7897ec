"""Reports are one escaped, complete file; summaries are finite, plain JSON, written in one step."""

import json
import re

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report, markdown_to_html
from jepa_ros.reporting.summary import percentiles, write_summary


def page(report, tmp_path):
    return report.write(tmp_path / "deep" / "report.html").read_text()


def test_a_report_is_one_self_contained_file(tmp_path):
    rng = np.random.default_rng(0)
    report = Report("Demo", "seed 0").section("Results").text("All **good**, see `x`.\n\n- one\n- two")
    report.tiles({"reached": "19 of 20", "p50": 0.0123456}, good={"reached": True})
    report.table([{"a": 1, "b": None}, {"a": 2.5, "b": "x"}])
    report.plot(plots.lines({"loss": ([0, 1], [1, 2])}, x="step", y="loss", level=(1.5, "goal")))
    report.plot(plots.histogram(rng.normal(size=200), x="ms", marks={"p50": 0.0}))
    report.images([("goal, end", [rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)] * 2)])
    report.images([("big", rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))])
    text = page(report, tmp_path)
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "@import" not in text and "<script" not in text and "<link" not in text
    assert text.count("<svg") == 2 and text.count("data:image/png") == 2 and text.count("data:image/jpeg") == 1
    assert "<li>one</li>" in text and "<b>good</b>" in text and "0.01235" in text
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "report.html"]


def test_plots_use_the_page_colours_and_have_unique_ids(tmp_path):
    report = Report("Two")
    for _ in range(2):
        report.plot(plots.lines({"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 1])}, log_y=True))
    figure, axes = plots.figure()
    axes.plot([0, 1], label="a line")
    axes.legend()
    text = page(report.plot(figure), tmp_path)
    assert "var(--ink)" in text and plots.INK not in text and "fill: #ffffff" not in text
    assert re.search(r"fill: var\(--ink\)[^>]*>a line<", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', text)[0]) - {""} <= set(ids)


@pytest.mark.parametrize("foreign", ["<script>alert(1)</script>", '"><img src=x onerror=1>', "a & b"])
def test_external_text_is_escaped_everywhere(tmp_path, foreign):
    picture = np.zeros((4, 4, 3), np.uint8)
    report = Report(foreign, foreign).section(foreign).text(foreign).tiles({foreign: foreign})
    report.table([[foreign]], [foreign]).images([(foreign, picture)])
    assert foreign not in page(report, tmp_path)


def test_code_blocks_keep_their_text():
    assert markdown_to_html("a\n\n```\nx < 1\n  y\n```\n\nb") == "<p>a</p>\n<pre>x &lt; 1\n  y</pre>\n<p>b</p>"


@pytest.mark.parametrize(
    "part, problem",
    [
        (lambda r: r.images([("float", np.zeros((4, 4, 3)))]), "image 'float': must be .* uint8, is .* float64"),
        (lambda r: r.images([("rgba", np.zeros((4, 4, 4), np.uint8))]), r"image 'rgba': must be .*, is \(4, 4, 4\)"),
        (lambda r: r.table([[1, 2]], ["one"]), "table: 2 cells in a row of 1 columns"),
        (lambda r: r.table([[1]]), "table: columns are missing"),
    ],
)
def test_invalid_report_content_is_refused_in_one_line(part, problem):
    with pytest.raises(InputError, match=f"^report: {problem}"):
        part(Report("x"))


def test_a_summary_is_plain_finite_json_with_relative_paths(tmp_path):
    out = tmp_path / "run" / "summary.json"
    write_summary(
        out,
        {
            "n": np.int64(3),
            "x": np.float32(0.1),
            "a": np.arange(3) / 3,
            "ok": np.bool_(True),
            "none": None,
            "video": tmp_path / "run" / "demo.mp4",
            "deep": [{"k": (1, 2)}],
        },
    )
    read = json.loads(out.read_text())
    assert read == {
        "n": 3,
        "x": 0.1,
        "a": [0.0, 0.333333, 0.666667],
        "ok": True,
        "none": None,
        "video": "demo.mp4",
        "deep": [{"k": [1, 2]}],
    }
    assert [p.name for p in out.parent.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), object()])
def test_a_summary_refuses_nan_by_field_name_and_keeps_the_old_file(tmp_path, value):
    out = write_summary(tmp_path / "summary.json", {"old": 1})
    with pytest.raises(InputError, match=r"final\.p50\[1\]"):
        write_summary(out, {"final": {"p50": [0.0, value]}})
    assert json.loads(out.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [out]


def test_percentiles_ignore_nan_and_are_none_for_no_values():
    assert percentiles([1, 2, 3, float("nan")], (50,), {"max": np.max}) == {"p50": 2.0, "max": 3.0}
    assert percentiles([]) == {"p50": None, "p99": None}
