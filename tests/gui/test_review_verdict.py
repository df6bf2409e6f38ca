"""The review's verdict follows what the check of the hosts found."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel

from app.views.wizards.review_step import ReviewStep
from core.contracts.forms import SpecReview
from core.contracts.hosts import CheckReport, Finding, FindingLevel


def report(host: str, *levels: FindingLevel) -> CheckReport:
    findings = tuple(Finding(level=level, what="Something.", remedy="Do something.") for level in levels)
    return CheckReport(host=host, ok=FindingLevel.ERROR not in levels, findings=findings)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ((FindingLevel.OK,), "Ready to launch"),
        ((FindingLevel.WARNING,), "Ready to launch, with 1 warning"),
        ((FindingLevel.WARNING, FindingLevel.WARNING), "Ready to launch, with 2 warnings"),
        ((FindingLevel.ERROR, FindingLevel.WARNING), "1 error on a host"),
        ((FindingLevel.ERROR, FindingLevel.ERROR), "2 errors on the hosts"),
    ],
)
def test_the_verdict_counts_what_stands_against_the_launch(qtbot, levels, words):
    step = ReviewStep()
    qtbot.addWidget(step)
    step.show_review(SpecReview(problems=(), warnings=(), toml="kind = 'x'", command="pilothouse run"))
    step.show_remote("2 hosts")
    step.show_checks((report("a", *levels), report("b", FindingLevel.OK)))
    verdict = step.findChild(QLabel, "review_verdict")
    assert isinstance(verdict, QLabel)
    assert verdict.text() == words
