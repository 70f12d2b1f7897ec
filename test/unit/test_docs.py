"""The documentation site builds without warnings, and its generated pages say what the code says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "tools" / "docs_reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


@pytest.fixture(scope="module")
def pages():
    return reference.reference_pages()


def test_the_documentation_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "nodes.html").is_file()


def test_the_node_reference_has_every_parameter_with_its_default(pages):
    from jepa_ros.nodes.arm_gate.parameters import PARAMETERS

    page = pages["reference/nodes.md"]
    for parameter in PARAMETERS:
        assert f"| `{parameter.name}` |" in page
    assert "| `require_deadman` | `false` |" in page


def test_the_node_reference_has_topics_services_and_actions_with_their_types(pages):
    page = pages["reference/nodes.md"]
    for row in (
        "| publishes | `latent` | `LatentState` |",
        "| subscribes | `plan` | `Plan` |",
        "| subscribes | `frame` | `Image` |",
        "| service | `release` | `Trigger` |",
        "| action | `reach_goal` | `ReachGoal` |",
    ):
        assert row in page


def test_the_message_reference_has_every_interface_field_and_constant(pages):
    page = pages["reference/messages.md"]
    for path in (ROOT / "msg").glob("*/*.*"):
        if path.suffix in (".msg", ".srv", ".action"):
            assert f"### {path.stem}\n" in page
    assert "| `LATCHED=4` | `uint8` |" in page and "| `encode_ms` | `float32` | ms" in page


def test_the_command_reference_has_every_command_and_its_options(pages):
    page = pages["reference/commands.md"]
    for heading in ("## jepa_ros up sim", "## jepa_ros evaluate bag", "## jepa_ros doctor"):
        assert heading in page
    assert "| `--camera-topic` | `image` |" in page


def test_the_file_format_reference_has_types_ranges_and_meanings(pages):
    page = pages["reference/file_formats.md"]
    assert "| `position_margin` | number ≥ 0 ≤ 0.5 | required |" in page
    assert "## Training recipe" in page and "## Dataset index" in page
