"""The page of jdm-doctor: facts, problems that must be fixed, and notes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jdm.data.checks import Finding
from jdm.errors import JdmError

FOUR = "jdm-convert, jdm-train, jdm-export, jdm-experiment"


@dataclass
class Report:
    """A page of facts by section, and findings."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    """Name and value; a section's heading has no value."""
    findings: list[Finding] = field(default_factory=list)

    def section(self, title: str) -> None:
        self.facts.append((title, ""))

    def fact(self, name: str, value: object) -> None:
        self.facts.append((name, str(value)))

    def must(self, needs: str, text: str) -> None:
        """Add a problem that stops some commands from working."""
        self.findings.append(Finding(text, needs, must=True))

    def note(self, needs: str, text: str) -> None:
        """Add a note for users of some commands."""
        self.findings.append(Finding(text, needs, must=False))

    @contextmanager
    def checked(self, needs: str, must: bool = True) -> Iterator[None]:
        """Add any JdmError raised in the block as a finding, and continue."""
        try:
            yield
        except JdmError as error:
            self.findings.append(Finding(str(error), needs, must))

    def text(self, most: int | None = 20) -> str:
        """The page, with at most `most` findings under each heading; the home folder is written as ~."""
        lines = [_indented(name, value) if value else f"\n{name}" for name, value in self.facts]
        for title, must in (("Must be fixed", True), ("Notes", False)):
            found = [finding for finding in self.findings if finding.must == must]
            shown = found if most is None else found[:most]
            lines.append(f"\n{title}: {len(found) or 'none'}")
            lines += [f"  {number}. {finding} [{finding.needs}]" for number, finding in enumerate(shown, 1)]
            if len(shown) < len(found):
                lines.append(f"  and {len(found) - len(shown)} more; add --all to see them")
        text = "\n".join(lines).lstrip("\n") + "\n"
        home = str(Path.home())
        # a shell expands ~ only at the beginning of a word and outside quotes
        return text if home == "/" else re.sub(rf"(?<=[\s=:]){re.escape(home)}(?=/)", "~", text)


def _indented(name: str, value: str) -> str:
    return textwrap.fill(value, 118, initial_indent=f"  {name:<20}", subsequent_indent=" " * 22, break_long_words=False)
