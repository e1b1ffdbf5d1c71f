"""The arguments that the tools drawing from a demo event share."""

import argparse
from pathlib import Path


def parse_picture_arguments(description: str) -> argparse.Namespace:
    """Read the command line: `data_root`, `results` and `output`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data_root", type=Path, help="folder with the demo events")
    parser.add_argument("results", type=Path, help="folder with stage1 and stage2")
    parser.add_argument("output", type=Path, help="the file to write")
    return parser.parse_args()
