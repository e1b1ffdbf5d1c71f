"""The documentation names what is there: messages, files, flags."""

import re
from pathlib import Path

import pytest

from tests.scripts import PROJECT
from tests.test_architecture import shipped

DOCS = [*sorted((PROJECT / "docs").glob("*.md")), PROJECT / "README.md", PROJECT / "demo" / "README.md"]
NOT_OURS = {"No module named '_gdal_array'"}  # Python's message


def source_text() -> str:
    """All the program's text, with string literals that go on in the next line joined, and placeholders as `…`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(shipped()))
    joined = re.sub(r'"\n\s*f?"', "", text)
    return re.sub(r"\{[^{}\n]*\}|%[sd]", "…", joined)


def headings() -> list[str]:
    """The messages that the FAQ explains."""
    text = (PROJECT / "docs" / "faq.md").read_text(encoding="utf-8")
    found = [message for line in re.findall(r"^### (.*)$", text, re.M) for message in re.findall(r"`([^`]+)`", line)]
    return [message for message in found if message not in NOT_OURS and not message.startswith(".")]


def test_the_messages_of_the_faq_are_the_programs() -> None:
    source = source_text()
    assert len(headings()) > 30
    missing = [message for message in headings() if not all(part.strip(" ()") in source for part in message.split("…"))]
    assert not missing


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_sections_of_the_faq_are_linked() -> None:
    text = (PROJECT / "docs" / "faq.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(#([^)]+)\)", text)
    there = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)]
    assert linked == there
