"""The working folder of a candidate that has no mount of its own: made, removed whatever it holds, swept up later.

A zygote holds a lock (flock) on the folder of its candidate, which the kernel takes back however the zygote ends. So a
folder without a lock is left over, and the next start removes it.
"""

import contextlib
import fcntl
import os
import secrets
import tempfile

PREFIX = "idlora-sandbox-"
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW  # a link or a pipe of that name is refused


def make(uid):
    """A new folder, which belongs to `uid` unless that is None: its path, and the descriptor that holds its lock."""
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | _FOLDER)
            if _lock(lock) is not False and os.path.exists(path):
                break
            os.close(lock)  # swept before it was locked
    if uid is not None:
        os.chown(path, uid, uid)
    return path, lock


def remove(path):
    """Removes a folder of which nobody is left who could change it, and what it holds, as far as the system lets us.

    Folders in folders are moved up first: `shutil.rmtree` recurses and opens one descriptor per level, so a program
    could nest them too deep for it, or take its right to read them away.
    """
    with contextlib.suppress(OSError), _opened(path) as top:
        while folders := _remove_files(top):
            for name in folders:
                with _opened(name, top) as folder:
                    for inner in _remove_files(folder):
                        with _opened(inner, folder):  # a folder that may not be written may not be moved
                            os.rename(inner, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
                os.rmdir(name, dir_fd=top)
        os.rmdir(path)


def sweep(owners):
    """Removes the folders that belong to one of `owners` (uids) and that no zygote holds any more."""
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for path in found:
        with contextlib.suppress(OSError), _opened(path, owners=owners) as folder:
            if _lock(folder):
                remove(path)


def _lock(folder):
    """Whether we hold the lock now; None where the file system has no locks, so that nothing is swept there."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def _opened(name, inside=None, owners=None):
    """A descriptor of a folder, after we have given ourselves every right to it; an OSError if it is another's."""
    place = os.open(name, os.O_PATH | _FOLDER, dir_fd=inside)
    try:
        if owners and os.fstat(place).st_uid not in owners:
            raise PermissionError(f"{name} belongs to somebody else")
        os.chmod(f"/proc/self/fd/{place}", 0o700)  # by its descriptor: a name could be a link by now
        folder = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(place)
    try:
        yield folder
    finally:
        os.close(folder)


def _remove_files(folder):
    """Removes all but the folders in a folder and returns their names."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]
