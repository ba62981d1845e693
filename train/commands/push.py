"""`paravt push`: a policy with its card and recipe in one folder, and on the hub if that is asked.

Nothing is uploaded without `--repo-id`. Where the hub cannot be reached, or is switched off
(`HF_HUB_OFFLINE`), the folder is written all the same and one line says so. Tests: `pytest
tests/commands/test_push.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import agents
from train.common.errors import ConfigError

SHIPPED = Path(agents.__file__).parent / "checkpoints"
KEPT = 1
"""Exit status where the folder was written and the hub could not be reached."""


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Write the folder; upload it where a repository is named."""
    parser.add_argument("folder", help="a run, a checkpoint, or the name of a shipped one")
    parser.add_argument("--repo-id", default="", help="OWNER/NAME on the hub; without: no upload")
    parser.add_argument("--output", type=Path, help="default: published/NAME")
    parser.add_argument("--license", default="", help="of the weights, such as apache-2.0")
    parser.add_argument("--public", action="store_true", help="a new repository is private without")
    parser.add_argument("--message", default="Upload by paravt push", help="of the commit")
    args = parser.parse_args(words)
    if args.repo_id:
        check_repo_id(args.repo_id)
    from train.report.card import policy_in, write_folder  # torch: once the words are read

    folder = SHIPPED / args.folder if (SHIPPED / args.folder).is_dir() else Path(args.folder)
    policy = policy_in(folder)
    name = args.repo_id.rpartition("/")[2] or folder.resolve().name
    target = args.output or Path("published") / name
    for said in write_folder(policy, target, name, args.license):
        print(f"its recipe names a path of this machine: {said}", file=sys.stderr)
    numbers = f", with the numbers of {policy.evaluation}" if policy.evaluation else ""
    print(f"{target} written from {policy.folder}{numbers}", flush=True)
    if not args.repo_id:
        print("nothing was uploaded: give --repo-id OWNER/NAME")
        return 0
    why = upload(target, args.repo_id, not args.public, args.message)
    if why:
        print(
            f"nothing was uploaded: {why}. The folder stays; the same command with another "
            f"--output, or `hf upload {args.repo_id} {target}`, does it later",
            file=sys.stderr,
        )
        return KEPT
    print(f"uploaded to {args.repo_id}")
    return 0


def check_repo_id(repo_id: str) -> None:
    """Refuse what is no OWNER/NAME.

    Raises:
        ConfigError: It is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"--repo-id {repo_id!r}: {error}") from error
    if repo_id.count("/") != 1:
        raise ConfigError(f"--repo-id {repo_id!r}: give OWNER/NAME")


def upload(folder: Path, repo_id: str, private: bool, message: str) -> str:
    """Upload a folder; "" if it was, else why the hub could not be reached.

    Raises:
        ConfigError: No token, one that may not write there, or an answer that is an error.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if constants.is_offline_mode():
        return "the hub is switched off (HF_HUB_OFFLINE)"
    token = get_token()
    if not token:
        raise ConfigError(
            f"{folder} is written, and not uploaded: there is no token. Set HF_TOKEN to one that "
            "may write, or log in with `hf auth login`"
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    except OfflineModeIsEnabled as error:
        return str(error)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ConfigError(
                f"{folder} is written, and not uploaded: the hub refused the token for {repo_id} "
                f"(status {status}). It needs the right to write there"
            ) from error
        raise ConfigError(
            f"{folder} is written, and not uploaded: the hub answered {status}: {error}"
        ) from error
    except (HTTPError, OSError) as error:
        return f"the hub cannot be reached ({error})"
    return ""
