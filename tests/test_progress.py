"""Progress: a bar on a terminal; elsewhere at most a line a minute, of what is done and how long the rest takes."""

import io
import re
import sys
import time

import pytest

from jdm.system.progress import Bar, duration, progress


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_without_a_terminal_a_line_a_minute_says_what_is_left(clock, capsys):
    with Bar(100, "steps", done=20) as bar:  # resumed: the first 20 took no time of this run
        bar.note({"loss": "0.25"})
        for _ in range(17):
            clock.now += 10
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [re.findall(r"\d+ of \d+ steps|\d+ minutes|loss 0.25", line) for line in lines] == [
        ["27 of 100 steps", "12 minutes", "loss 0.25"],  # 73 steps of 10 s each
        ["34 of 100 steps", "11 minutes", "loss 0.25"],
    ]


def test_a_budget_ends_the_work_before_its_pace_would(clock, capsys):
    with Bar(1000, "steps", limit=240.0) as bar:
        for _ in range(13):
            clock.now += 10
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [re.findall(r"\d+ of|\d+ steps|\d+ minutes?", line) for line in lines] == [["7 steps", "3 minutes"]]


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bar(100, "steps", done=20) as bar:
        bar.update(7)
        bar.note({"loss": "0.25"})
    assert "27/100" in sys.stderr.getvalue() and "loss=0.25" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("items", "active", "shown"),
    [([5, 6, 7], True, [1, 2, 3]), ([5, 6, 7], False, []), (iter([5, 6, 7]), True, [])],
    ids=["shown", "inactive", "unknown length"],
)
def test_items_pass_through_and_are_counted_when_they_are_done(clock, capsys, items, active, shown):
    seen = []
    for item in progress(items, "crops", active=active):
        clock.now += 61
        seen.append(item)
    assert seen == [5, 6, 7]
    assert [int(n) for n in re.findall(r"(\d) of 3 crops", capsys.readouterr().err)] == shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 minute"), (89, "1 minute"), (91, "2 minutes"), (7100, "118 minutes"), (7200, "2.0 hours"),
        (9000, "2.5 hours"), (360_000, "100.0 hours"),
    ],
)  # fmt: skip
def test_durations_are_in_words(seconds, words):
    assert duration(seconds) == words
