"""What the site needs beyond MkDocs: the benchmarks' page, and no links to files that only the repository has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BENCHMARKS = "benchmarks/README.md"
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the benchmarks' page, which lies beside the scripts."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "benchmarks.md", abs_src_path=str(ROOT / BENCHMARKS)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the path of a file outside docs/, as it is in a checkout, in place of a link to it."""
    return _OUTSIDE.sub(_path, markdown)


def _path(link: re.Match[str]) -> str:
    text, path, anchor = link.groups()
    if path == BENCHMARKS:
        return f"[{text}](benchmarks.md{anchor or ''})"
    return f"`{path}`" if path.endswith(text) else f"{text} (`{path}`)"
