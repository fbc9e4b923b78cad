"""`cwjax push`: a model directory onto the Hugging Face hub."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.description = (
        "Uploads a model directory to the Hugging Face hub, its scores in the header of its card. The token is that of "
        "`hf auth login`, or in HF_TOKEN."
    )
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="such as runs/demo/model")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made if it does not exist")
    parser.add_argument("--private", action="store_true", help="nobody else may see it")
    parser.add_argument("--license", default="", help="of the weights, by the hub's name for it, such as apache-2.0")
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded, and leave it at that")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")


def run(options: argparse.Namespace) -> int:
    """Uploads, and gives the exit status."""
    from cwjax.weights.hub_upload import contents_of, upload

    contents = contents_of(options.model, options.repository, options.license)
    for place, content in contents.items():
        print(f"{len(content) if isinstance(content, bytes) else content.stat().st_size:>14,}  {place}")
    if not options.dry_run:
        print(upload(options.repository, contents, options.private))
    return 0
