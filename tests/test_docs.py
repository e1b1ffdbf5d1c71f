"""Messages, files, flags and settings named in the documentation exist."""

import argparse
import ast
import importlib
import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import PROJECT
from tests.test_architecture import PACKAGES, SCRIPTS

DOCS = [
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted(PROJECT.glob("*.md")),
    PROJECT / "demo" / "README.md",
    PROJECT / "report" / "assets" / "README.md",
]
NOT_IN_PROGRAM = {"No module named '_gdal_array'"}  # Python's message


def program_texts() -> str:
    """The texts in the program's source and in its templates, with placeholders as `…`."""
    modules = [path for name in PACKAGES for path in (PROJECT / name).rglob("*.py")]
    nodes = [
        node
        for path in sorted([*PROJECT.glob("*.py"), *modules])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    texts = [_text(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)]
    texts += [path.read_text(encoding="utf-8") for path in (PROJECT / "report").rglob("*.html")]
    return re.sub("%[sd]", "…", "\n".join(texts))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def headings() -> list[str]:
    """The messages that the FAQ explains."""
    text = (PROJECT / "docs" / "faq.md").read_text(encoding="utf-8")
    found = [message for line in re.findall(r"^### (.*)$", text, re.M) for message in re.findall(r"`([^`]+)`", line)]
    return [message for message in found if message not in NOT_IN_PROGRAM and not message.startswith(".")]


def test_messages_of_the_faq_exist_in_the_program() -> None:
    texts = program_texts()
    assert len(headings()) > 30
    missing = [message for message in headings() if not all(part.strip(" ()") in texts for part in message.split("…"))]
    assert not missing


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(PROJECT)))
def test_linked_sections_exist(page: Path) -> None:
    missing = []
    for target, section in re.findall(r"\]\(([^)#\s]*\.md|)#([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            text = (page.parent / target if target else page).read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", text, re.M)
            if section not in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]:
                missing.append(f"{target}#{section}")
    assert not missing


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(PROJECT)))
def test_modules_named_in_backticks_exist(page: Path) -> None:
    """A module is named by its path from the project's folder, or from the page's."""
    named = re.findall(r"`(?:python )?([\w./-]+\.py)`", page.read_text(encoding="utf-8"))
    missing = [name for name in named if not (PROJECT / name).exists() and not (page.parent / name).exists()]
    assert not missing


def test_sections_of_the_faq_are_linked() -> None:
    text = (PROJECT / "docs" / "faq.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(#([^)]+)\)", text)
    there = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)]
    assert linked == there


def table_rows(text: str) -> list[list[str]]:
    """The cells of all table rows of a page, without the rows of headings."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in re.findall(r"^\|.*\|$", text, re.M)]
    return [row for number, row in enumerate(rows) if not is_rule(row) and not is_rule((rows[number + 1 :] or [[]])[0])]


def is_rule(row: list[str]) -> bool:
    """Whether a row is the line under a table's headings."""
    return set("".join(row)) <= set("-| ") and bool(row)


def quoted(cell: str) -> list[str]:
    """The parts of a cell in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def shown(value: object) -> list[str]:
    """A value as the pages show it: parts in backticks. Paths are relative to the project's folder."""
    if isinstance(value, Path):
        return [value.relative_to(PROJECT).as_posix()]
    if isinstance(value, tuple):
        return [str(part) for part in value]
    return [f"{value:g}" if isinstance(value, float) else str(value)]


# --- docs/command_line.md --------------------------------------------------------------------------------------------
class ParserFoundError(Exception):
    """Stops a script when it parses its command line."""


def parser_of(script: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser that a script builds."""

    def found(parser: argparse.ArgumentParser, *_: object) -> None:
        raise ParserFoundError(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", found)
    with pytest.raises(ParserFoundError) as stopped:
        importlib.import_module(script).parse_arguments([])
    parser = stopped.value.args[0]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def documented_flags() -> dict[str, dict[tuple[str, ...], list[str]]]:
    """For every script, the rows of `docs/command_line.md` that apply to it, by option strings."""
    flags: dict[str, dict[tuple[str, ...], list[str]]] = {name: {} for name in SCRIPTS}
    text = (PROJECT / "docs" / "command_line.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        named = re.search(r"^Scripts: (.*)$", section, re.M)
        if named is None:
            assert not [row for row in table_rows(section) if row[0].startswith("`--")]
            continue
        for script in quoted(named[1]):
            for row in table_rows(section):
                options = tuple(option.split()[0] for option in quoted(row[0]))
                assert options not in flags[script.removesuffix(".py")], (script, options)
                flags[script.removesuffix(".py")][options] = row
    return flags


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_command_line_page_has_every_flag_with_its_default(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documented = documented_flags()[script]
    actions = {
        tuple(action.option_strings): action
        for action in parser_of(script, monkeypatch)._actions
        if action.dest != "help"
    }
    assert set(documented) == set(actions)
    for options, (_, default, meaning) in documented.items():
        action = actions[options]
        if isinstance(action.default, bool):
            assert default == ("on" if action.default else "off"), options
        elif action.default is None:
            assert default, options  # in words
        else:
            assert quoted(default) == shown(action.default), options
        if action.choices:
            assert set(map(str, action.choices)) <= set(quoted(meaning)), options


def test_flags_named_in_the_pages_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    parsers = [parser_of(script, monkeypatch) for script in SCRIPTS]
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    for page in DOCS:
        named = set(re.findall(r"`(--[\w-]+)", page.read_text(encoding="utf-8")))
        assert named <= known | {"--no-cache-dir"}, page  # pip's


# --- docs/settings.md ------------------------------------------------------------------------------------------------
def documented_settings() -> dict[str, list[str]]:
    """The rows of `docs/settings.md` by the name of the setting."""
    rows = table_rows((PROJECT / "docs" / "settings.md").read_text(encoding="utf-8"))
    names = [quoted(row[0])[0] for row in rows]
    assert len(names) == len(set(names))
    return dict(zip(names, rows, strict=True))


def expected_settings(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, list[str]], set[str]]:
    """Every setting of config.py as the page shows it, and the names that the environment can override."""
    asked: set[str] = set()

    class Environment(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return default

    monkeypatch.setattr(os, "environ", Environment())
    settings: dict[str, list[str]] = {}
    for name, value in runpy.run_path(str(PROJECT / "config.py")).items():
        if not name.isupper() or name.startswith("_"):
            continue
        if isinstance(value, dict) and value:
            settings |= {f'{name}["{key}"]': shown(part) for key, part in value.items()}
        else:
            settings[name] = shown(value)
    return settings, {name.removeprefix("ANOMALYCD_") for name in asked}


def test_the_settings_page_has_every_setting_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, overridable = expected_settings(monkeypatch)
    documented = documented_settings()
    assert set(documented) == set(expected)
    for name, (_, value, _, override, meaning) in documented.items():
        assert quoted(value) == expected[name], name
        assert override == ("yes" if name.split("[")[0] in overridable else "no"), name
        assert meaning, name


def test_the_version_is_the_same_everywhere() -> None:
    version = runpy.run_path(str(PROJECT / "config.py"))["VERSION"]
    citation = (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.M) == [version]
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([\d.]+)\]", changes, re.M)[0] == version
    for name in ("Dockerfile", "rayjob.yaml"):
        tags = re.findall(r"anomalycd:(\S+)", (PROJECT / "docs" / "cluster" / name).read_text(encoding="utf-8"))
        assert set(tags) - {"."} == {version}, name
