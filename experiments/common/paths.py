"""Paths on the command line of the programs in this folder."""

import argparse
from pathlib import Path


def plain_path(text: str) -> Path:
    """Refuses what a shell would have expanded, and not behind '=': a folder named ~ is never meant (as the C++ programs do)."""
    if not text or text.startswith("~"):
        raise argparse.ArgumentTypeError(f"expected a path written in full, got '{text}': only a shell knows what ~ stands for")
    return Path(text)
