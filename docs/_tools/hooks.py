"""What mkdocs calls while it builds the site: pages made from the code, equations, and links that leave `docs/`."""

import posixpath
import re
from pathlib import Path

import method_pages
import reference
from equations import set_equations
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ssl_lightning import _HOMES

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages that there are as many of as methods and groups."""
    for section in config.nav or []:
        if "Methods" in section:
            for family, names in method_pages.by_family().items():
                pages = [{method_pages.front(name)["title"]: f"methods/{name}.md"} for name in names]
                section["Methods"].append({method_pages.FAMILIES[family]: pages})
        if "Reference" in section:
            pages = [{group: f"reference/config/{group.replace('/', '_')}.md"} for group in reference.GROUPS]
            section["Reference"].insert(1, {"Keys by group": pages})
        if "Guides" in section and not (ROOT / "docs" / "python.md").is_file():
            section["Guides"].remove({"From Python": "python.md"})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code."""
    made = {f"reference/config/{group.replace('/', '_')}.md": reference.page(group) for group in reference.GROUPS}
    made["reference/index.md"] = reference.index()
    made["reference/api.md"] = api()
    made["contributing.md"] = (ROOT / "CONTRIBUTING.md").read_text()
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    path = page.file.src_uri
    if path.startswith("methods/") and page.file.name != "index":
        markdown = method_pages.filled(page.file.name, markdown)
    if path == "methods/index.md":
        markdown = markdown.replace("<!-- overview -->", method_pages.overview())
    within = "docs" if path != "contributing.md" else ""
    return set_equations(at_home(inline_diagrams(markdown), posixpath.dirname(posixpath.join(within, path)), files))


def api() -> str:
    """The public names, by mkdocstrings."""
    parts = ["# Python API", "What `import ssl_lightning` offers. Each name is loaded when it is first asked for."]
    for name, home in sorted(_HOMES.items(), key=lambda item: item[0].lower()):
        parts.append(f"::: ssl_lightning.{home}.{name}")
    return "\n\n".join(parts) + "\n"


def inline_diagrams(markdown: str) -> str:
    """`![...](../diagrams/x.svg)` becomes the drawing itself, which takes the page's colours."""

    def one(found: re.Match[str]) -> str:
        drawing = (ROOT / "docs" / "diagrams" / found[2]).read_text()
        return f'<div class="diagram">{drawing.strip()}</div>'

    return re.sub(r"^!\[([^\]]*)\]\((?:\.\./)?diagrams/([\w.]+\.svg)\)$", one, markdown, flags=re.M)


def at_home(markdown: str, folder: str, files: Files) -> str:
    """Links to what is no page (code, results, yamls) become the path as text: the site does not hold these files."""

    def one(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if picture or re.match(r"\w+:|#", target):
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, target.split("#")[0]))
        inside = posixpath.relpath(place, "docs")
        if not inside.startswith("..") and files.get_file_from_path(inside):
            if not folder.startswith("docs"):  # the page itself has moved into the site
                return f"[{text}]({target.removeprefix('docs/')})"
            return found[0]
        plain = text.strip("`")
        return f"`{place}`" if plain in place else f"{text} (`{place}`)"

    fences = re.split(r"(^```.*?^```$)", markdown, flags=re.S | re.M)
    return "".join(part if part.startswith("```") else LINK.sub(one, part) for part in fences)
