"""What can go wrong on a person's machine, said in a sentence."""

import errno


class LocalError(Exception):
    """A sentence for the person at the terminal: what is wrong, and what to do about it."""


def sentence_for(error: OSError, *, doing: str) -> str:
    """Say what the operating system refused while we were `doing` something."""
    where = f" ({error.filename})" if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"The disk is full: no space left for {doing}{where}. Free some and start again."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"No permission for {doing}{where}. BURSAR_HOME moves the data elsewhere."
        case _:
            return f"{doing} failed: {error.strerror or error}{where}."
