"""Results of the doctor: summary.json, report.html and overlay.jpg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jepa_ros.doctor.finding import Finding, Level
from jepa_ros.doctor.observations import Observations, RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary

OVERLAY = "overlay.jpg"
_TITLES = {Level.ERROR: "Errors", Level.WARNING: "Warnings", Level.OK: "As it should be"}

CaptionedImages = list[tuple[str, np.ndarray]]
"""Captions and images (H, W, 3) uint8 RGB; the last one is the overlay."""


def summarise(findings: Sequence[Finding], observed: Observations, setup: RobotSetup) -> dict[str, Any]:
    """Return the contents of summary.json."""
    errors, warnings = count_problems(findings)
    return {
        "robot": setup.robot.name,
        "model": setup.model.name,
        "namespace": setup.namespace or "/",
        "camera_topics": list(setup.image_topics),
        "seconds": observed.seconds,
        "errors": errors,
        "warnings": warnings,
        "findings": [
            {
                "level": f.level.name.lower(),
                "code": f.code,
                "check": f.check,
                "what": f.subject,
                "expected": f.expected,
                "found": f.found,
                "advice": f.advice,
            }
            for f in findings
        ],
        "messages": {
            setup.joint_states_topic: len(observed.joints),
            **{camera.topic: len(camera.times) for camera in observed.cameras},
        },
    }


def count_problems(findings: Sequence[Finding]) -> tuple[int, int]:
    """Return the numbers of errors and warnings."""
    levels = [f.level for f in findings]
    return levels.count(Level.ERROR), levels.count(Level.WARNING)


def verdict(findings: Sequence[Finding]) -> str:
    """Return the result as one line."""
    errors, warnings = count_problems(findings)
    if not errors + warnings:
        return "no problems found"
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def write_files(
    out: Path, findings: Sequence[Finding], observed: Observations, setup: RobotSetup, images: CaptionedImages
) -> list[Path]:
    """Write all files to `out`; return their paths. Raises InputError if that is not possible."""
    overlay = out / OVERLAY
    try:
        out.mkdir(parents=True, exist_ok=True)
        overlay.unlink(missing_ok=True)
        if images:
            cv2.imwrite(str(overlay), cv2.cvtColor(images[-1][1], cv2.COLOR_RGB2BGR))
        files = [
            write_summary(out / "summary.json", summarise(findings, observed, setup)),
            _build_report(findings, observed, setup, images).write(out / "report.html"),
        ]
    except OSError as problem:
        raise InputError(f"--out {out}: cannot be written to ({problem}); give another directory") from None
    return files + [overlay] * bool(images)


def _build_report(
    findings: Sequence[Finding], observed: Observations, setup: RobotSetup, images: CaptionedImages
) -> Report:
    about = f"robot {setup.robot.name} · model {setup.model.name} · namespace {setup.namespace or '/'}"
    report = Report("jepa_ros doctor", f"{about} · {observed.seconds:g} s")
    errors, warnings = count_problems(findings)
    report.tiles({"errors": errors, "warnings": warnings}, good={"errors": not errors, "warnings": not warnings})
    for level, title in _TITLES.items():
        some = [f for f in findings if f.level is level]
        if some and level is Level.OK:
            report.section(title).table([{"check": f.subject, "found": f.found} for f in some])
        elif some:
            lines = [f"- **{f.subject}**: expected {f.expected}, found {f.found}. {f.advice}" for f in some]
            report.section(title).text("\n".join(lines))
    if images:
        report.section("The camera").images(images, width=320)
        report.text(
            "Overlay: the live image and, if there is one, the training camera's image, blended, with the arm's joints "
            "where the training camera would see them. If these are not on the arm, the camera has moved."
        )
    return report
