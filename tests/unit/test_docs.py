"""The documents name everything there is, and nothing that is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from typer.main import get_command

from slurper.api.envelope import Code
from slurper.cli import commands
from slurper.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
UNLISTED = {"SLURPER_ENGINE"}  # it has only one value yet


def test_the_page_of_settings_lists_every_setting() -> None:
    page = (DOCS / "settings.md").read_text()
    listed = re.findall(r"^\| `(SLURPER_[A-Z0-9_]+)` \|", page, re.MULTILINE)
    settings = {f"SLURPER_{name.upper()}" for name in Settings.model_fields}
    assert sorted(listed) == sorted(settings - UNLISTED)


def test_the_page_of_commands_lists_every_command() -> None:
    page = (DOCS / "commands.md").read_text()
    table = page.partition("\n| command | what it does |\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `slurper ([a-z-]+(?: [a-z-]+)?)", table, re.MULTILINE)
    assert sorted(listed) == sorted(_commands())


def _commands() -> Iterator[str]:
    found = getattr(get_command(commands.app), "commands")  # noqa: B009 - typed as a plain command
    for name, command in found.items():
        below = getattr(command, "commands", None)
        yield from (f"{name} {each}" for each in below) if below else (name,)


def test_the_api_page_explains_every_error_code() -> None:
    page = (DOCS / "api.md").read_text()
    explained = {int(code) for code in re.findall(r"^\| (\d{4,6}) \|", page, re.MULTILINE)}
    assert explained == {int(code) for code in Code}


def test_the_architecture_page_names_every_module() -> None:
    page = (DOCS / "architecture.md").read_text()
    listing = page.partition("\nsrc/slurper/\n")[2].partition("```")[0]
    blocks = re.split(r"^  (?=\S)", listing, flags=re.MULTILINE)
    source = ROOT / "src" / "slurper"
    for path in source.rglob("*.py"):
        if path.stem.startswith("__") or "migrations" in path.parts:
            continue
        package, *rooms = path.relative_to(source).with_suffix("").parts
        named = [block for block in blocks if re.match(rf"{package}\b", block)]
        found = [
            block for block in named if all(re.search(rf"\b{room}\b", block) for room in rooms)
        ]
        assert found, f"{path.relative_to(source)} is not in docs/architecture.md"


def test_every_promise_names_tests_that_exist() -> None:
    page = (DOCS / "promises.md").read_text()
    tables = re.findall(
        r"^\| promise \| shown by \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE
    )
    assert len(tables) == page.count("\n## "), "a section without promises"
    for row in "".join(tables).splitlines():
        assert re.search(r"`tests/\S+::test_\w+`|\*in preparation\*", row), row
    _exist(page)


def test_every_row_of_the_security_tables_names_tests_that_exist() -> None:
    page = (DOCS / "security.md").read_text()
    tables = re.findall(
        r"^\| they try \| what holds \| shown by \|\n\|---\|---\|---\|\n((?:\|.*\n)+)",
        page,
        re.MULTILINE,
    )
    assert len(tables) == 3, "somebody without a token, a tenant, a store"
    for row in "".join(tables).splitlines():
        assert re.search(r"`tests/\S+::test_\w+` *(?:,|\|$)", row), row
    _exist(page)


def _exist(page: str) -> None:
    for path, name in set(re.findall(r"`(tests/[^`:]+)::(\w+)`", page)):
        defined = re.findall(r"^ *(?:async )?def (\w+)\(", (ROOT / path).read_text(), re.MULTILINE)
        assert name in defined, f"{path}::{name}"


def test_every_promise_has_its_tests_under_the_same_name() -> None:
    promised, shown = (_sections(page) for page in ("semantics.md", "promises.md"))
    names = {
        title: [name.rstrip(".,:") for name in re.findall(r"^- \*\*(.+?)\*\*", text, re.MULTILINE)]
        for title, text in promised.items()
    }
    rows = {
        title: re.findall(r"^\| (?!promise)([^|]+) \| `tests", text, re.MULTILINE)
        for title, text in shown.items()
    }
    assert names == rows


def _sections(page: str) -> dict[str, str]:
    _, *sections = re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)
    return {title: text for title, _, text in (each.partition("\n") for each in sections)}


def test_links_between_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "SECURITY.md", *DOCS.glob("**/*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
