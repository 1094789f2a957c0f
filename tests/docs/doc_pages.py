"""What stands in the blocks of the pages: every test of a page's commands takes all of them from here."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks_of(page: str, language: str) -> list[str]:
    """The blocks of a page in one language, such as 'bash' or 'python'."""
    return re.findall(rf'^```{language}\n(.*?)^```', (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def commands_of(*pages: str) -> list[str]:
    """The commands of these pages in their order, each once; one that goes over several lines is one line."""
    text = '\n'.join(block for page in pages for block in blocks_of(page, 'bash')).replace('\\\n', ' ')
    lines = [' '.join(line.split()) for line in text.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith('#')))
