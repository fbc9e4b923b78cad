"""Uploads of model directories to the Hugging Face hub."""

import logging
import sys
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.weights.context_adapter import is_adapter, read_adapter
from cwjax.weights.hub_card import hub_card
from cwjax.weights.model_card import MODEL_CARD_FILE
from cwjax.weights.model_directory import read_model_config, read_parameters

log = logging.getLogger(__name__)

Contents = dict[str, Path | bytes]
"""What is uploaded, by its path in the repository."""


def contents_of(directory: Path, repository: str, licence: str = "") -> Contents:
    """The files of a model directory, and its card with the scores in its header.

    Args:
        directory: of the model, or of an adapter.
        repository: OWNER/NAME.
        licence: of the weights, by the hub's name for it; empty: as the card has it.

    Raises:
        CwjaxError: the repository's name is none, or this is no whole model.
    """
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise CwjaxError(f"push: {repository}: name a repository as OWNER/NAME")
    if is_adapter(directory):
        list(read_adapter(directory)[2]())
    else:
        read_parameters(directory, read_model_config(directory))  # refuses what is no whole model
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    contents: Contents = {
        place: path for place, path in sorted(paths.items()) if not any(part[0] == "." for part in place.split("/"))
    }
    if hidden := len(paths) - len(contents):
        log.info("%d hidden files are left out", hidden)
    contents[MODEL_CARD_FILE] = hub_card(directory, name, licence).encode()
    return contents


def upload(repository: str, contents: Contents, private: bool) -> str:
    """Uploads files in one commit, and gives its address.

    Raises:
        CwjaxError: there is no token, the hub cannot be reached, or it refuses.
    """
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
    except (*_connection_errors(), OfflineModeIsEnabled, OSError) as error:
        reason = (
            "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else str(error).splitlines()[0][:200]
        )
        raise CwjaxError(f"push: the hub cannot be reached ({reason}); check the network and try again") from error


def _connection_errors() -> tuple[type[Exception], ...]:
    """Those of the library by which huggingface_hub talks, another one since its version 2."""
    return tuple(sys.modules[name].HTTPError for name in ("httpx", "httpx2") if name in sys.modules)
