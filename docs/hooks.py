"""What MkDocs does not do itself to make the site of docs/ (mkdocs.yml names this file).

Pages are written for a plain Git host first, and work there as they are. For the site

- README.md is the start page, CHANGELOG.md a page, and each folder of `CODE` a page with its files;
- a link whose text is a page's file shows its title in the navigation;
- links to files outside docs/ lead to those pages, or to the API page of a module or object of tfaug; of a link to a
  file or folder that has no page, its text stays;
- equations, as GitHub and GitLab take them, become MathML: no script and no network is needed to show them;
- a block of `$ tfaug COMMAND --help` is followed by what that command prints.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
import subprocess
import sys

from latex2mathml.converter import convert
from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WHOLE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
CODE = {
    "configs": "Every number of an experiment, with its source. One recipe may start from another.",
    "benchmarks": "Measurements that these pages quote; each is a command, `python -m benchmarks.NAME`.",
}

_FENCE = r"^(?P<fence>`{3,})(?P<language>\w*)\n(?P<code>.*?)^(?P=fence)\n"
_LINK = r"\[(?P<text>[^\]\[]*)\]\((?P<target>[^)\s]+)\)"
_FORMULA = r"\$`(?P<formula>[^`]+)`\$"
_PARTS = re.compile("|".join((_FENCE, _FORMULA, _LINK)), re.DOTALL | re.MULTILINE)
_HELP = re.compile(r"\$ tfaug (\w+) --help\n")


def on_files(files, config):
    """Adds the pages that lie outside docs/."""
    for file, uri in WHOLE.items():
        files.append(File.generated(config, uri, content=(ROOT / file).read_text(encoding="utf-8")))
    for folder, about in CODE.items():
        files.append(File.generated(config, f"code/{folder}.md", content=_listing(folder, about)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links, equations and commands' help into what the site shows."""
    uri = page.file.src_uri
    page.formulas = []
    base = ROOT if uri in WHOLE.values() else (DOCS / uri).parent

    def changed(found):
        if found["fence"]:
            return _fence(found, page.formulas)
        if found["formula"]:
            return _placeholder(page.formulas, found["formula"], "inline")
        return _link(found, base, posixpath.dirname(uri), files)

    return _PARTS.sub(changed, markdown)


def on_page_content(html, page, config, files):
    """Puts the equations where Markdown, which would read their signs as its own, has kept their places.

    Takes the dash away that mkdocstrings puts before what is returned where it has no type.
    """
    html = re.sub(r'(<li class="doc-section-item field-body">)\s*–\s*', r"\1", html)
    for number, mathml in enumerate(page.formulas):
        html = html.replace(f"<p>{_token(number)}</p>", f'<div class="formula">{mathml}</div>')
        html = html.replace(_token(number), mathml)
    return html


def _fence(found, formulas):
    if found["language"] == "math":
        return f"\n{_placeholder(formulas, found['code'], 'block')}\n\n"
    if command := _HELP.fullmatch(found["code"]):
        return f"```text\n{found['code']}{_help(command[1])}```\n"
    return found[0]


def _placeholder(formulas, latex, display):
    formulas.append(convert(latex.strip(), display=display))
    return _token(len(formulas) - 1)


def _token(number):
    return f"zformula{number}z"


def _help(command):
    """What `tfaug COMMAND --help` prints."""
    call = [sys.executable, "-m", "tfaug", command, "--help"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PluginError(f"tfaug {command} --help failed: {done.stderr}")
    return done.stdout.strip() + "\n"


def _link(found, base, folder, files):
    """A Markdown link as it must be on a page that lies in `folder` of the site; `base` is that of its target."""
    text, target = found["text"], found["target"]
    path, _, anchor = target.partition("#")
    if not path or ":" in path:
        return found[0]
    file = (base / path).resolve()
    if ROOT not in file.parents:
        return found[0]  # MkDocs warns of it
    name = file.relative_to(ROOT).as_posix()
    top = name.partition("/")[0]
    if name in WHOLE:
        uri = WHOLE[name]
    elif top == "docs":
        uri = name[len("docs/") :] + ("/README.md" if file.is_dir() else "")
    elif top in CODE:
        uri, anchor = f"code/{top}.md", anchor or ("" if file.is_dir() else slugify(name, "-"))
    elif top == "tfaug":
        return f"[{text}][{_object(name, text)}]"
    else:
        uri = name
    linked = files.get_file_from_path(uri)
    if file.exists() and not linked:
        return text
    if linked and linked.page and re.fullmatch(r"[\w./-]+\.md", text):
        text = linked.page.title
    return f"[{text}]({posixpath.relpath(uri, folder or '.')}{'#' * bool(anchor)}{anchor})"


def _object(name, text):
    """What a link to a file of tfaug means: the object that its text names, or the module."""
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    named = re.fullmatch(r"`([A-Za-z_][\w.]*)`", text)
    return f"{module}.{named[1]}" if named else module


def _listing(folder, about):
    parts = [f"# {folder}/\n\n{about}\n"]
    for file in sorted((ROOT / folder).glob("[!_]*.py")):
        code = file.read_text(encoding="utf-8")
        parts.append(f"## {folder}/{file.name}\n\n````python\n{code}````\n")
    return "\n".join(parts)
