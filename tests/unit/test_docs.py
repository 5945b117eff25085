"""The documents name everything there is, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from slurper.api.envelope import Code
from slurper.cli import commands
from slurper.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NOT_IN_USE_YET = {"SLURPER_ENGINE", "SLURPER_GCS_ENDPOINT", "SLURPER_GCS_TOKEN_URI"}


def test_the_readme_lists_every_setting() -> None:
    listed = set(re.findall(r"^\| `(SLURPER_[A-Z0-9_]+)` \|", README, re.MULTILINE))
    settings = {f"SLURPER_{name.upper()}" for name in Settings.model_fields}
    assert listed == settings - NOT_IN_USE_YET


def test_the_readme_names_every_command() -> None:
    found = getattr(get_command(commands.app), "commands")  # noqa: B009 - typed as a plain command
    for name, command in found.items():
        assert f"`slurper {name}" in README
        for below in getattr(command, "commands", {}):
            assert re.search(rf"`slurper {name} [^`]*\b{below}\b", README), (name, below)


def test_the_api_page_explains_every_error_code() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    explained = {int(code) for code in re.findall(r"^\| (\d{4,6}) \|", page, re.MULTILINE)}
    assert explained == {int(code) for code in Code}


def test_the_architecture_page_names_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
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
    page = (ROOT / "docs" / "promises.md").read_text()
    tables = re.findall(
        r"^\| promise \| shown by \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE
    )
    assert len(tables) == page.count("\n## "), "a section without promises"
    for row in "".join(tables).splitlines():
        assert re.search(r"`tests/\S+::test_\w+`|\*in preparation\*", row), row
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
    _, *sections = re.split(r"^## ", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return {title: text for title, _, text in (each.partition("\n") for each in sections)}


def test_links_between_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
