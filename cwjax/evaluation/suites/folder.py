"""Where a suite lies: a folder that is given, or a data set of the Hugging Face hub, fetched unless it is here."""

from pathlib import Path

from cwjax.errors import CwjaxError


def suite_folder(name: str, source: str, hub: str, patterns: list[str], directory: str | Path | None) -> Path:
    """The folder of a suite.

    Args:
        name: of the suite, for messages.
        source: where to get it, for messages.
        hub: id of its data set, OWNER/NAME; empty: it is on no hub.
        patterns: of the names of the files that are needed.
        directory: a folder, or the id of another data set with the same layout; None: `hub`.

    Raises:
        CwjaxError: there is no such folder, or the data set cannot be fetched.
    """
    given = str(directory) if directory is not None else hub
    if directory is not None and Path(directory).is_dir():
        return Path(directory)
    if not given:
        raise CwjaxError(f"{name}: give its folder with --data; get it so: {source}")
    if given.startswith((".", "/", "~")) or given.count("/") != 1:
        raise CwjaxError(f"{given}: no such folder; {name} comes from: {source}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(given, repo_type="dataset", allow_patterns=patterns))
    except Exception as error:
        wanted = " ".join(f"--include '{one}'" for one in patterns)
        raise CwjaxError(
            f"{name}: {given} is no folder and cannot be fetched from the hub ({type(error).__name__}); run elsewhere: "
            f"hf download {given} --repo-type dataset {wanted} --local-dir DIR, and give --data DIR"
        ) from error
