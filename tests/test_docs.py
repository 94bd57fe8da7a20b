"""The pages of docs/ and the site that MkDocs makes of them; .ci/run builds it, and fails on a dead link."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from tfaug.commands.main import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# But for what `evaluate.py --table1` writes beside the results.
FILES = [path for path in DOCS.rglob("*.md") if path.name != "table1.md"]
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
NAMED = r"\[`([A-Za-z_][\w.]*)`\]\(([^)#]*/tfaug/[^)#]*\.py)\)"  # a link whose text is an object of the file


def literal(name):
    """What docs/hooks.py says of `name`, without the packages that it imports."""
    body = ast.parse((DOCS / "hooks.py").read_text(encoding="utf-8")).body
    (value,) = [node.value for node in body if isinstance(node, ast.Assign) and node.targets[0].id == name]
    return ast.literal_eval(value)


def leaves(nav):
    for entry in nav:
        for value in entry.values():
            yield from leaves(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_once():
    nav = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    made = [*literal("WHOLE").values(), *(f"code/{folder}.md" for folder in literal("CODE"))]
    assert sorted(nav) == sorted([*PAGES, *made])


def defined(body):
    """The names that a module or a class defines or imports."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def has(body, name):
    first, _, rest = name.partition(".")
    if not rest:
        return first in defined(body)
    return any(has(node.body, rest) for node in body if isinstance(node, ast.ClassDef) and node.name == first)


def test_the_objects_that_pages_name_are_where_they_say():
    links = [(page, *found) for page, text in PAGES.items() for found in re.findall(NAMED, text)]
    assert sum(page == "method.md" for page, _, _ in links) > 20
    for page, name, target in links:
        body = ast.parse((DOCS / page).parent.joinpath(target).read_text(encoding="utf-8")).body
        assert has(body, name), f"{page}: {target} has no {name}"


@pytest.mark.parametrize("name, expected", [("Rule", True), ("Rule.create", True), ("Rule.made", False), ("X", False)])
def test_an_object_that_is_missing_would_be_found(name, expected):
    assert has(ast.parse("class Rule:\n    create: int\n").body, name) is expected


def test_every_command_has_its_section_with_its_flags():
    sections = re.findall(r"^## (\w+)\n(?:(?!^## ).*\n)*?^\$ tfaug (\w+) --help$", PAGES["commands.md"], re.MULTILINE)
    assert sections == [(command, command) for command in COMMANDS]
    programs = [path.read_text(encoding="utf-8") for path in (ROOT / "tfaug/commands").glob("*.py")]
    known = {name for text in programs for name in re.findall(r'DEFINE_\w+\(\s*"([\w-]+)"', text)}
    assert set(re.findall(r"`--([\w-]+)", PAGES["commands.md"])) - {"help", "config"} <= known


@pytest.mark.slow
def test_the_site_needs_no_network(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert pages
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert not [tag for tag in tags if re.search(r"(?:src|href)=.?(?:https?:)?//", tag)], page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(.?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    assert "<math" in (tmp_path / "method.html").read_text(encoding="utf-8")
