"""What a machine runs short of - disk, memory, workers, rights - as a sentence with what to do about it."""

import errno
import os
import re
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from typing import Final

SAME_AGAIN: Final = "run the same command again"
# What each stage's memory goes by, as params.yaml calls it.
LOWER: Final[Mapping[str, tuple[str, ...]]] = {
    "train_teacher": ("train_teacher.batch_size", "model.input_size"),
    "extract_pseudo_labels": ("extract_pseudo_labels.batch_size", "cam.scales", "pixelcam_map.scales"),
    "train_pixelcam": ("train_pixelcam.batch_size", "model.input_size"),
    "evaluate_ood": ("evaluate_ood.batch_size", "cam.scales", "pixelcam_map.scales"),
    "report": ("report.images_per_domain", "cam.scales", "pixelcam_map.scales"),
}
_REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOSPC: "free some space there and " + SAME_AGAIN,
    errno.EDQUOT: "remove some of your files there and " + SAME_AGAIN,
    errno.EFBIG: "raise the limit for the size of a file (ulimit -f) and " + SAME_AGAIN,
    errno.EROFS: "mount it to be written to, or name another place",
    errno.EACCES: "change its owner or its permissions (chown, chmod), or name another place",
    errno.EPERM: "change its owner, its permissions or its attributes (chown, chmod, lsattr), or name another place",
    errno.EEXIST: "something of another kind has this name: move it away",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.EISDIR: "a folder stands where a file is needed: move it away",
    errno.EIO: "the disk fails: save what is on it and use another",
    errno.EMFILE: "raise the limit for open files (ulimit -n)",
}
# Of these, the place is the cause and not what the file holds.
_NOT_THE_FILE: Final = {*_REMEDIES, errno.ENOMEM, errno.ENFILE} - {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
# What libraries say where the system's allocator, or that of a GPU, gave nothing.
_OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "bad_alloc")
_ONE_VALUE: Final = "Expected more than 1 value per channel when training"
_ASKED: Final = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")


def system_error(error: Exception) -> OSError | None:
    """Return what the system refused: the error itself, or what a library in Rust said of it; None if it did not."""
    if isinstance(error, OSError):
        return None if error.errno is None or isinstance(error, BrokenPipeError) else error
    said = _OS_ERROR.search(str(error))
    return OSError(int(said.group(1)), os.strerror(int(said.group(1)))) if said else None


def is_shortage(error: Exception) -> bool:
    """Tell whether something failed for want of memory, room or rights, so that what was read may well be whole."""
    return _is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in _NOT_THE_FILE)


def explain_system_error(error: OSError) -> str:
    """Return what the system refused, and the remedy."""
    number = error.errno or 0
    return f"{os.strerror(number)}; {_REMEDIES.get(number, 'mend that and ' + SAME_AGAIN)}"


def explain_shortage(error: Exception, program: str) -> str | None:
    """Return a sentence for an error that the machine is the cause of, not the code; None for any other.

    Args:
        error: what a program ended with.
        program: a stage, or a command.
    """
    text = first_line(error)
    refused = system_error(error)
    if _is_out_of_memory(error) or (refused is not None and refused.errno == errno.ENOMEM):
        asked = _ASKED.search(str(error))
        need = f" for {asked.group(1)} more" if asked else ""
        return f"{program}: there is not enough memory{need}; {_less_memory(program)}"
    if _ONE_VALUE in text:
        return (
            f"{program}: batch normalization needs more than one value of each channel in a batch, got one image with "
            f"one feature cell; raise {program}.batch_size or model.input_size, or set {program}.frozen to batch_norm"
        )
    if isinstance(error, BrokenExecutor) or text.startswith("DataLoader worker"):
        return (
            f"{program}: a worker process died ({text}); if the system ended it for want of memory (dmesg says so), "
            f"{_less_memory(program)}, and {SAME_AGAIN}"
        )
    if refused is None:
        return None
    return f"{refused.filename or program}: {explain_system_error(refused)}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message without what follows a first full stop, or its kind."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _OUT_OF_MEMORY)


def _less_memory(program: str) -> str:
    if program not in LOWER:
        return "end other programs, or use a machine with more"
    *others, last = LOWER[program]
    return f"lower {', '.join(others)} or {last} in the params, or use a machine with more"
