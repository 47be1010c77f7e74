"""A page in headless Chromium: what a script finds there, and what the console says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PROBE = """<script>
addEventListener("load", () => {
  const found = (() => { %s })();
  const place = document.createElement("pre");
  place.id = "found";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
});
</script>"""


def run_in_page(page: Path, script: str) -> tuple[Any, list[str]]:
    """Open a copy of a page from disk; return what a script in it returns, and the lines of the console.

    The script is the body of a function, which is called when the page is loaded.
    """
    assert BROWSER is not None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "index.html"
        copy.write_text(page.read_text("utf-8").replace("</body>", f"{_PROBE % script}</body>"), "utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command = [BROWSER, *flags, "--enable-logging=stderr", "--dump-dom", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])) if match else None, console
