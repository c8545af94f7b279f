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
_CHINESE = {  # titles in the navigation of Chinese pages
    "Getting started": "快速上手（英文）",
    "Your own data": "自己的数据",
    "Models and recipes": "模型与训练方案",
    "Config": "配置",
    "Many runs": "多次训练",
    "Sweeps": "批量实验",
    "Search": "搜索",
    "Many devices": "多设备",
    "A run and its use": "一次训练及其使用",
    "Resume and checkpoints": "续训与检查点",
    "A picture of every run": "训练报告",
    "Evaluate, predict and export": "评估、预测与导出",
    "Exported models": "导出的模型",
    "Give a model away": "分享模型",
    "From Python": "在 Python 中使用",
    "What it promises": "承诺与实测",
    "Reliability": "可靠性",
    "Performance": "性能",
    "Security": "安全",
    "What did not work": "没有奏效的尝试",
    "Contributing": "参与开发",
    "Changes": "更新记录",
}
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


def on_page_context(context: Any, page: Any, config: Any, nav: Any) -> Any:
    """Let a Chinese page's navigation, and the theme's own words on it, be Chinese."""
    chosen = "zh" if _is_chinese(page) else "en"
    if config.theme["language"] != chosen:
        config.theme["language"] = chosen
        english = {chinese: title for title, chinese in _CHINESE.items()}
        _rename(nav.items, _CHINESE if chosen == "zh" else english)
    return context


def on_post_page(output: str, page: Any, config: Any) -> str:
    output = output.replace(_FOREIGN, "frame-worker.js")
    return output.replace('<html lang="zh"', '<html lang="zh-CN"') if _is_chinese(page) else output


def on_post_template(output: str, template_name: str, config: Any) -> str:
    return output.replace(_FOREIGN, "/frame-worker.js")  # 404.html


def _is_chinese(page: Any) -> bool:
    return ".zh-CN." in page.file.src_uri


def _rename(items: Any, titles: dict[str, str]) -> None:
    for item in items:
        item.title = titles.get(item.title, item.title)
        _rename(item.children or (), titles)
