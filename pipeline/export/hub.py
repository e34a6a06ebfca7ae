"""A model as a repository of the model hub: what goes up, and how it comes down again."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Final

import huggingface_hub.constants
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.encoders.weights import FOLDER, offline_where_unreachable, reason
from pipeline.evaluation.prediction import load_model
from pipeline.export.model_card import CARD, read_card
from pipeline.export.model_card_facts import params_sha256
from pipeline.export.model_card_sections import HUB, REPOSITORY
from pipeline.models.files import ADAPTATION, DESCRIPTION, HISTORY, WEIGHTS, read_info
from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.reading import read_sections
from pipeline.params.vocabulary import Weights
from pipeline.runtime.console import say
from pipeline.runtime.files import is_shortage, replacing_folder
from pipeline.training.saving import tensors_sha256

PARAMS: Final = "params.yaml"
FILES: Final = (WEIGHTS, DESCRIPTION, HISTORY, ADAPTATION, PARAMS, CARD)  # nothing else goes up or comes down
OPTIONAL: Final = (ADAPTATION,)
# What would have timm fetch or open something besides, were it an encoder's argument.
NO_ARGUMENTS: Final = {"checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}


def write_repository(folder: Path, model: Path, *, repository: str, params: Path, card: Path | None) -> None:
    """Write the files of a model's repository into a folder, and open the model from there once.

    Args:
        folder: exists, and is empty.
        model: the model's folder.
        repository: owner/name, which the card tells how to use.
        params: the params file, which says how its maps are read.
        card: the model card; None: the one that the pipeline wrote.

    Raises:
        PixelCAMError: a file is missing or damaged, the card is about other weights, the params score other weights
            than those that are given away, or a text holds a path of this machine.
    """
    _check_name(repository)
    text = read_card(model, card)
    values = load_params(params)
    _check_weights(model, values, params)
    if card is None and params_sha256(values) not in text:
        raise PixelCAMError(
            f"{params}: differs from the params of the card, whose scores would be of another reading; give those with "
            "--params, or run 'dvc repro model_cards'"
        )
    for name in FILES:
        if name not in (PARAMS, CARD) and ((model / name).exists() or name not in OPTIONAL):
            _copy(model / name, folder / name)
    _copy(params, folder / PARAMS)
    (folder / CARD).write_text(text.replace(f"{HUB}{REPOSITORY}", f"{HUB}{repository}"), encoding="utf-8")
    _check_paths(read_sections(params), params)
    load_model(folder, params=values)


def _check_name(repository: str) -> None:
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise _misnamed(repository) from error
    if repository.count("/") != 1:
        raise _misnamed(repository)


def _misnamed(repository: str) -> PixelCAMError:
    return PixelCAMError(
        f"{shown(repository)}: expected OWNER/NAME, letters, digits and - _ . of at most 96 characters; mend the name"
    )


def _check_weights(model: Path, params: Params, file: Path) -> None:
    scored = params.evaluate_ood.weights[0]
    read_info(model)  # checks the file that is read next
    description = json.loads((model / DESCRIPTION).read_text(encoding="utf-8"))
    if scored not in (Weights.SELECTED, description["selection"]):
        raise PixelCAMError(
            f"{file}: evaluate_ood.weights names {scored} first, and the weights that leave are those selected; set it "
            "to [selected] and run 'dvc repro model_cards'"
        )


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise PixelCAMError(f"{source}: does not exist; run 'dvc repro', or name another model") from error


def _check_paths(values: object, file: Path, key: str = "") -> None:
    """Refuse params that hold a path of this machine: it may name a person, a hospital or a project."""
    if isinstance(values, dict):
        for name, value in values.items():
            _check_paths(value, file, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for value in values:
            _check_paths(value, file, key)
    elif isinstance(values, str):
        path = values.removeprefix(f"{FOLDER}:")
        if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or path.startswith("~"):
            raise PixelCAMError(
                f"{file}: {key} is a path of this machine, {shown(values)}, which would be published; "
                "give a copy without it with --params"
            )


def push(model: Path, repository: str, *, private: bool, params: Path, card: Path | None) -> str:
    """Upload a model to the model hub and return the address of its page.

    Args:
        model: the model's folder.
        repository: owner/name; is made if there is none.
        private: whether nobody else may see it.
        params: the params file.
        card: the model card; None: the one that the pipeline wrote.

    Raises:
        PixelCAMError: see `write_repository`; there is no network, no token, no right to write, or the repository is
            there already and public, though a private one was asked for.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_repository(folder, model, repository=repository, params=params, card=card)
        with _explaining(repository, deed="written"):
            api = HfApi()
            address = str(api.create_repo(repository, private=private or None, exist_ok=True))
            if private and not api.model_info(repository).private:
                raise PixelCAMError(
                    f"{repository}: is there already and public; make it private on its page, or give another name"
                )
            api.upload_folder(
                repo_id=repository, folder_path=folder, allow_patterns=list(FILES), commit_message="A PixelCAM model"
            )
    return address


def write_folder(folder: Path, model: Path, *, repository: str, params: Path, card: Path | None) -> None:
    """Write what would be uploaded into a folder, whole or not at all, and upload nothing; see `write_repository`."""
    if folder.exists():
        raise PixelCAMError(f"{folder}: exists already; give another --folder, or remove it")
    with replacing_folder(folder) as temporary:
        write_repository(temporary, model, repository=repository, params=params, card=card)


def find_model(name: str) -> Path:
    """Return the folder of a model: itself, or of `hf-hub:owner/name` what was fetched, kept in the hub's cache.

    `hf-hub:owner/name@revision` takes that revision.

    Raises:
        PixelCAMError: it cannot be fetched, is not there, or is no model of this project.
    """
    if not name.startswith(HUB):
        return Path(name)
    repository, _, revision = name.removeprefix(HUB).partition("@")
    _check_name(repository)
    with _explaining(repository, deed="fetched"):
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    missing = [file for file in (WEIGHTS, DESCRIPTION) if not (folder / file).is_file()]
    if missing:
        raise PixelCAMError(f"{name}: holds no {missing[0]}, so it is no model of this project; mend the name")
    encoder = read_info(folder).encoder
    if json.loads((folder / DESCRIPTION).read_text("utf-8")).get("tensors_sha256") != _tensors_sha256(folder / WEIGHTS):
        raise PixelCAMError(f"{name}: its {WEIGHTS} is not the one that its {DESCRIPTION} is about; do not use it")
    if ":" in str(encoder.architecture) or not NO_ARGUMENTS.isdisjoint(dict(encoder.arguments)):
        raise PixelCAMError(f"{name}: its {DESCRIPTION} would have more files fetched or opened; do not use it")
    return folder


def _tensors_sha256(weights: Path) -> str:
    try:
        return tensors_sha256(load_file(weights))
    except (OSError, SafetensorError) as error:
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{weights}: its weights cannot be loaded ({error}); do not use it") from error


def params_for(model: Path, params: Path | None) -> Params | None:
    """Return the params that were given, or those that came with a model; None where there are neither."""
    beside = model / PARAMS
    if params is None and beside.is_file():
        say(f"the map is read as {beside} says")
        params = beside
    return None if params is None else load_params(params)


@contextmanager
def _explaining(repository: str, *, deed: str) -> Iterator[None]:
    """Turn whatever goes wrong with the hub into a sentence."""
    try:
        with offline_where_unreachable():
            yield
    except PixelCAMError:
        raise
    except Exception as error:  # the hub's client raises many kinds
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{HUB}{repository}: cannot be {deed}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
        return "it is not there, or not yours to see or write; mend the name, or run 'hf auth login' with your account"
    if status == 404:
        return "the hub has none of that name or revision; mend the name"
    return f"{reason(error)}; check the network and the name ({huggingface_hub.constants.ENDPOINT})"
