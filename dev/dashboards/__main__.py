"""`python -m dashboards`: write charts/ropewalk/dashboards/*.json."""

from __future__ import annotations

from cluster.console import say
from dashboards.boards import FOLDER, files


def main() -> None:
    """Write each dashboard, and remove what is none any more."""
    made = files()
    for old in FOLDER.glob("*.json"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
        say(f"{FOLDER / name}: {len(text)} characters")


if __name__ == "__main__":
    main()
