"""Writing files so that an interruption leaves the old one or the new one, never a part."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file aside and renames it. Raises OSError as `Path.write_text` does."""
    aside = path.with_name(path.name + ".partial")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
