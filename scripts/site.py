"""Hook of mkdocs: pages that lie beside docs/ join the site, and links lead to them on GitHub and on the site alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # a file at the root, and its name on the site
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh-CN.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
}
_FOREIGN = "https://unpkg.com/iframe-worker/shim"  # what the plugin `offline` would have every page load
_PICTURE = re.compile(r'<picture>\s*<source.*? srcset="(.*?)">\s*<img alt="(.*?)" src="(.*?)">\s*</picture>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    for name, on_site in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, on_site, content=re.sub(r'(\]\(|src="|srcset=")docs/', r"\1", text)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    if page.file.src_uri in ("log.md", "changelog.md"):
        page.meta["search"] = {"boost": 0.1}  # long lists, which would come first for every word
    for name, on_site in PAGES.items():
        markdown = re.sub(rf"\]\((\.\./)?{re.escape(name)}", f"]({on_site}", markdown)
    both = r'<img src="\1#only-dark">\n<img alt="\2" src="\3#only-light">'  # as the site's own switch has it
    return _PICTURE.sub(both, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    output = output.replace(_FOREIGN, "frame-worker.js")
    is_chinese = ".zh-CN." in page.file.src_uri  # so that browsers choose Chinese glyphs
    return output.replace('<html lang="en"', '<html lang="zh-CN"') if is_chinese else output


def on_post_template(output: str, template_name: str, config: Any) -> str:
    return output.replace(_FOREIGN, "/frame-worker.js")  # 404.html
