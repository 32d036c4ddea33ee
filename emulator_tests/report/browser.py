"""A page in headless Chromium: what its console says, and how its words fit a screen of some width."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = "chromium"

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--enable-logging=stderr", "--window-size=1400,1000", "--virtual-time-budget=2000",
)  # fmt: skip

# A frame of each width with the page in it, measured from outside: the page itself has no script.
_FRAMES = """<!DOCTYPE html><meta charset="utf-8">{frames}<pre id="result"></pre><script>
addEventListener("load", () => {{
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, words = [];
    const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {{
      const range = page.createRange();
      range.selectNodeContents(walker.currentNode);
      const box = range.getBoundingClientRect(), text = walker.currentNode.data.trim();
      const parent = walker.currentNode.parentElement;
      if (!box.width || !text || parent.closest("style, title")) continue;
      const scale = parent.ownerSVGElement ? parent.ownerSVGElement.getScreenCTM().a : 1;
      words.push([text, parseFloat(getComputedStyle(parent).fontSize) * scale, box.left, box.right]);
    }}
    found.push({{width: frame.clientWidth, scroll: page.documentElement.scrollWidth,
      height: page.documentElement.scrollHeight, words,
      resources: frame.contentWindow.performance.getEntriesByType("resource").map(item => item.name)}});
  }}
  document.getElementById("result").textContent = JSON.stringify(found);
}});
</script>"""


class Shown(NamedTuple):
    """A page on a screen `width` pixels wide, of which it takes `scroll`, and `height` pixels of its length."""

    width: int
    scroll: int
    height: int
    words: tuple[tuple[str, float, float, float], ...]
    """(text, font size, left edge, right edge) in pixels, of what can be seen."""
    resources: tuple[str, ...]
    """What the page has asked the network for."""


class Opened(NamedTuple):
    """A page in the browser."""

    console: tuple[str, ...]
    screens: tuple[Shown, ...]


def open_page(program: str, page: str, folder: Path, widths: Sequence[int]) -> Opened:
    """Open the text of a page, with a screen of each width."""
    source = html.escape(page)
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{source}"></iframe>' for width in widths
    )
    path = folder / "frames.html"
    path.write_text(_FRAMES.format(frames=frames), encoding="utf-8")
    command = [program, *_OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result is not None, done.stderr
    screens: list[dict[str, Any]] = json.loads(html.unescape(result[1]))
    return Opened(
        tuple(line for line in done.stderr.splitlines() if ":CONSOLE" in line),
        tuple(
            Shown(
                item["width"],
                item["scroll"],
                item["height"],
                tuple(map(tuple, item["words"])),
                tuple(item["resources"]),
            )
            for item in screens
        ),
    )
