"""What the doctor leaves: summary.json, report.html, overlay.jpg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jepa_ros.doctor.finding import Finding, Level
from jepa_ros.doctor.observations import Job, Seen
from jepa_ros.errors import InputError
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary

OVERLAY = "overlay.jpg"
_TITLES = {Level.ERROR: "Errors", Level.WARNING: "Warnings", Level.OK: "As it should be"}

Pictures = list[tuple[str, np.ndarray]]
"""Captions and pictures (H, W, 3) uint8 rgb; the last one is the overlay."""


def summary(findings: Sequence[Finding], seen: Seen, job: Job) -> dict[str, Any]:
    """The figures of summary.json."""
    return {
        "robot": job.robot.name,
        "model": job.model.name,
        "namespace": job.namespace or "/",
        "camera_topics": list(job.cameras),
        "seconds": seen.seconds,
        "errors": count(findings, Level.ERROR),
        "warnings": count(findings, Level.WARNING),
        "findings": [
            {
                "level": f.level.name.lower(),
                "check": f.check,
                "what": f.what,
                "expected": f.expected,
                "found": f.found,
                "advice": f.advice,
            }
            for f in findings
        ],
        "messages": {
            job.joint_states: len(seen.joints),
            **{camera.topic: len(camera.stream) for camera in seen.cameras},
        },
    }


def count(findings: Sequence[Finding], level: Level) -> int:
    """How many there are of a level."""
    return sum(f.level is level for f in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """One line."""
    errors, warnings = count(findings, Level.ERROR), count(findings, Level.WARNING)
    if not errors + warnings:
        return "all well"
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def write(out: Path, findings: Sequence[Finding], seen: Seen, job: Job, pictures: Pictures) -> None:
    """Everything into `out`. Raises InputError where there is no room or no right to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / OVERLAY).unlink(missing_ok=True)
        if pictures:
            cv2.imwrite(str(out / OVERLAY), cv2.cvtColor(pictures[-1][1], cv2.COLOR_RGB2BGR))
        write_summary(out / "summary.json", summary(findings, seen, job))
        _page(findings, seen, job, pictures).write(out / "report.html")
    except OSError as problem:
        raise InputError(f"out {out}: expected a directory that can be written to, found {problem}") from None


def _page(findings: Sequence[Finding], seen: Seen, job: Job, pictures: Pictures) -> Report:
    about = f"robot {job.robot.name} · model {job.model.name} · namespace {job.namespace or '/'} · {seen.seconds:g} s"
    report = Report("jepa_ros doctor", about)
    errors, warnings = count(findings, Level.ERROR), count(findings, Level.WARNING)
    report.tiles({"errors": errors, "warnings": warnings}, good={"errors": not errors, "warnings": not warnings})
    for level in sorted(_TITLES, reverse=True):
        some = [f for f in findings if f.level is level]
        if some and level:
            report.section(_TITLES[level]).text("\n".join(f"- {_item(f)}" for f in some))
        elif some:
            report.section(_TITLES[level]).table([{"what": f.what, "found": f.found} for f in some])
    if pictures:
        report.section("The camera").images(pictures, width=320)
        report.text(
            "Overlay: the live picture and, where there is one, the training camera's, half each, with the arm's "
            "joints where the training camera would see them. Where these lie off the arm, the camera stands elsewhere."
        )
    return report


def _item(f: Finding) -> str:
    return f"**{f.what}**: expected {f.expected}, found {f.found}. {f.advice}"
