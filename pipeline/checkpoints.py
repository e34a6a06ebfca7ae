"""Where a training leaves its state, so that one that was killed goes on, and none ever takes up another's."""

import hashlib
import importlib.metadata
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from torch import nn

from pipeline.console import say
from pipeline.errors import PixelCAMError
from pipeline.files import replacing_folder
from pipeline.shortages import is_shortage
from pipeline.training_state import TrainingState, load_state, save_state

COUNTED_PACKAGES: Final = ("pixelcam", "torch", "timm", "lightning-fabric")
STOPPED: Final = 128 + signal.SIGTERM  # exit status, as a shell counts


class Checkpoint:
    """The state of one training on disk, in a folder of its own below `root`.

    Args:
        root: folder of all checkpoints, outside of what DVC tracks.
        fingerprint: of everything that determines the training's result; part of the folder's name.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.folder = root / fingerprint

    def load(self, state: TrainingState) -> None:
        """Bring a training to where it was left, if it was.

        Raises:
            PixelCAMError: the checkpoint is damaged.
        """
        if not self.folder.exists():
            return
        try:
            load_state(state, self.folder)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.folder}: this checkpoint is damaged ({error}); remove the folder") from error
        say(f"going on at step {state.step + 1}, from {self.folder}")

    def save(self, state: TrainingState) -> None:
        """Write a training's state in the place of the one before."""
        with replacing_folder(self.folder) as temporary:
            save_state(state, temporary)

    def remove(self) -> None:
        """Remove the state of a training that has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint_of(model: nn.Module, determined_by: list[Any]) -> str:
    """Return 32 hexadecimal digits for a model's weights, values in JSON's types, and the packages' versions."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    versions = {name: importlib.metadata.version(name) for name in COUNTED_PACKAGES}
    digest.update(json.dumps([versions, *determined_by], sort_keys=True).encode())
    return digest.hexdigest()[:32]


@contextmanager
def noticing_termination() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets instead of ending the process, within the block.

    Outside of the main thread, where Python handles no signals, the event stays unset.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    former = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, former)
