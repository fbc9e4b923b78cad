"""`cwjax push`: a model directory onto the Hugging Face hub."""

import argparse
import logging
from pathlib import Path

from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)


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
    from cwjax.weights.hub_card import hub_card
    from cwjax.weights.model_card import MODEL_CARD_FILE
    from cwjax.weights.model_directory import read_model_config, read_parameters

    directory, (owner, _, name) = options.model, options.repository.partition("/")
    if not owner or not name or "/" in name:
        raise CwjaxError(f"push: {options.repository}: name a repository as OWNER/NAME")
    read_parameters(directory, read_model_config(directory))  # refuses what is no whole model
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    contents: dict[str, Path | bytes] = {
        place: path for place, path in sorted(paths.items()) if not any(part[0] == "." for part in place.split("/"))
    }
    contents[MODEL_CARD_FILE] = hub_card(directory, name, options.license).encode()
    for place, content in contents.items():
        print(f"{len(content) if isinstance(content, bytes) else content.stat().st_size:>14,}  {place}")
    if hidden := len(paths) - len(contents):
        log.info("%d hidden files are left out", hidden)
    if not options.dry_run:
        print(_upload(options.repository, contents, options.private))
    return 0


def _upload(repository: str, contents: dict[str, Path | bytes], private: bool) -> str:
    """Uploads files in one commit, and gives its address."""
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if get_token() is None:
        raise CwjaxError("push: there is no token for the hub; run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise CwjaxError(
                f"push: {repository} is public already; make it private on the hub, or leave out --private"
            )
        added = [CommitOperationAdd(place, content) for place, content in contents.items()]
        return api.create_commit(repository, added, commit_message="Upload a model of cwjax").commit_url
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise CwjaxError(
                f"push: the token may not write to {repository} ({status}); make one that may at "
                "https://huggingface.co/settings/tokens and run `hf auth login`"
            ) from error
        raise CwjaxError(f"push: {repository}: the hub refuses ({str(error).splitlines()[0][:300]})") from error
    except HFValidationError as error:
        raise CwjaxError(f"push: {repository}: is no name of a repository ({str(error).splitlines()[0]})") from error
    except ValueError as error:  # what the hub finds wrong with the header
        reason = " ".join(line.strip("- ") for line in str(error).splitlines()[1:] or [str(error)])
        raise CwjaxError(f"push: {repository}: the hub refuses the card: {reason[:300]}") from error
    except (httpx.HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = (
            "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else str(error).splitlines()[0][:200]
        )
        raise CwjaxError(f"push: the hub cannot be reached ({reason}); check the network and try again") from error
