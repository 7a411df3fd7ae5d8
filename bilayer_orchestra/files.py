"""Files: as a user names them, complete or not there, ours or another user's, locked or not.

Nobody but its owner may write what a job executes, whatever the umask; what belongs to another user
is read as data and never executed. See docs/decisions/0019.
"""

import errno
import fcntl
import functools
import hashlib
import os
import pwd
import re
import select
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bilayer_orchestra.errors import ForeignFileError, OrchestraError

#: What to do about a directory of another user.
ELSEWHERE = "-o names a directory of your own"
#: Permissions of a file that is made here; the umask may take more of them.
FILE = 0o644
#: Permissions of a directory of ours; the umask may take more of them.
DIRECTORY = 0o755
#: Group or others may write.
WRITABLE = stat.S_IWGRP | stat.S_IWOTH
DEFAULT_ACL = "system.posix_acl_default"
#: Lines of a log that a message quotes.
QUOTED = 8
#: Bytes at the end of a log in which they are looked for.
END = 16384
#: Begins what a program says of its own error.
_ERROR = re.compile("ERROR|FATAL:")
#: Ends a line of a backtrace that holds an address and no word.
_ADDRESS = re.compile(r"\[0x[0-9a-f]+\]$")
#: A model, a study, a profile is a page of text; more is a mistake (or an attack), and is not read.
MAX_BYTES = 1_000_000
#: Seconds that a pipe may take to say something.
PATIENCE = 10.0


def expand(text: str) -> str:
    """Return a path as a user wrote it, in an option, a file or a variable, with ``~`` replaced.

    ``~`` and ``~NAME`` at the start are home directories, nothing else means anything: shells have
    replaced variables by then, and names may hold a ``$``.

    Raises
    ------
    OrchestraError
        If there is no such user.
    """
    path = os.path.expanduser(text)  # noqa: PTH111 a Path would turn docker://NAME into a file
    if path.startswith("~"):
        raise OrchestraError(
            f"{text}: no user has this home directory; write the full path of a file of this name"
        )
    return path


def user_path(named: str | Path) -> Path:
    """Return the path that a user wrote; see :func:`expand`."""
    return Path(expand(str(named)))


def variable(name: str) -> str:
    """Return the path or program in an environment variable; empty if it is not set."""
    return expand(os.environ.get(name, ""))


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a file that a user named; a pipe or ``/dev/stdin`` is a file as well.

    Raises
    ------
    OSError
        If it cannot be read, is longer than any such file, or is a pipe that says nothing.
    """
    data = b""
    # opening a pipe would wait for its other end, for ever
    with open(path, "rb", buffering=0, opener=_without_waiting) as stream:
        while select.select([stream], [], [], PATIENCE)[0]:
            piece = stream.read(1 << 16)
            if not piece:
                return data
            data += piece
            if len(data) > MAX_BYTES:
                raise OSError(errno.EFBIG, f"it is longer than {MAX_BYTES} bytes", str(path))
    raise OSError(errno.ETIMEDOUT, f"it says nothing for {PATIENCE:g} s; is it a pipe?", str(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a new file that takes the place of ``path`` once it is written.

    The file exists by then, under a name that nobody could have prepared a link at.

    Raises
    ------
    OrchestraError
        If it cannot be written; a previous file at ``path`` is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.touch(FILE, exist_ok=False)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OrchestraError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``path`` by rename: complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def end_of(log: Path) -> str:
    """Return the end of a log; nothing if it cannot be read."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - END))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def quoted(text: str) -> str:
    """Return the end of what a program printed, indented; of an error, what follows the word."""
    lines = [line for line in text.splitlines() if line.strip() and not _ADDRESS.search(line)]
    errors = [k for k, line in enumerate(lines) if _ERROR.match(line)]
    shown = lines[errors[-1] :][:QUOTED] if errors else lines[-QUOTED:]
    return "\n".join(f"  {line}" for line in shown)


def make_directory(path: Path, mode: int = 0o777) -> Path:
    """Return ``path`` as a directory, made where it is missing; what is above it as the umask says.

    Raises
    ------
    OrchestraError
        If it cannot be one.
    """
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        for one in (path, *path.parents):
            if os.path.lexists(one) and not one.is_dir():
                what = "a file, not a directory" if one.exists() else "a link to nothing"
                raise OrchestraError(f"cannot write to {path}: {one} is {what}") from error
        raise OrchestraError(f"cannot write to {path}: {error.strerror}") from error
    return path


def open_log(path: Path) -> IO[bytes]:
    """Open a file to append to it; not through a link, which another user may have put there."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(path, flags, FILE), "ab")
    except OSError as error:
        raise OrchestraError(f"cannot write {path}: {error.strerror}") from error


def other_owner(path: Path) -> str | None:
    """Return the user to whom ``path``, or what it links to, belongs; None: to us, or not there."""
    for look in (path.lstat, path.stat):
        try:
            owner = look().st_uid
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise OrchestraError(f"cannot look at {path}: {error.strerror}") from error
        if owner != os.geteuid():
            return user_name(owner)
    return None


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where nobody knows a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def trusted(path: Path) -> bool:
    """Return whether nobody but us and root may have written ``path``."""
    status = path.lstat()
    if status.st_uid not in (os.geteuid(), 0):
        return False
    return stat.S_ISLNK(status.st_mode) or not status.st_mode & WRITABLE


def own_directory(path: Path, remedy: str) -> None:
    """Make sure that ``path`` is a directory of ours, in which nobody else may write.

    What is missing above it is made as the umask says: it may be shared.

    Parameters
    ----------
    remedy : str
        What to do if it belongs to another user.

    Raises
    ------
    ForeignFileError
        If it does.
    """
    made = other_owner(path) is None and not path.is_dir()
    if made:
        make_directory(path, DIRECTORY)
    owner = other_owner(path)
    if owner is not None:
        if made:  # such as root on a file system of another machine
            remedy = "this file system gives it what you make, and cannot tell users apart"
        raise ForeignFileError(f"{path} belongs to {owner}; {remedy}")
    _take_away(path.resolve())
    with suppress(OSError, AttributeError):  # no such list, or no such lists on this system
        os.setxattr(path, DEFAULT_ACL, _read_only(os.getxattr(path, DEFAULT_ACL)))


@contextmanager
def new_directory(target: Path, complete: str, remedy: str) -> Iterator[Path]:
    """Yield a new directory that becomes ``target`` once it is filled.

    Whoever comes second uses the first one's.

    Parameters
    ----------
    target : Path
        Is not there, or will be by then.
    complete : str
        Name of a file that it has if it is whole.
    remedy : str
        What to do if the directory above belongs to another user.

    Raises
    ------
    ForeignFileError
        If it does.
    """
    own_directory(target.parent, remedy)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        yield fresh
        fresh.chmod(DIRECTORY)
        try:
            fresh.rename(target)
        except OSError:
            if not (target / complete).exists():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def copy_files(files: Iterable[Path], root: Path, target: Path) -> None:
    """Copy files below ``root`` to the same places below ``target``.

    Parameters
    ----------
    files : iterable of Path
        What is copied.
    root, target : Path
        Directories.
    """
    for file in files:
        place = target / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def secure(tree: Path, remedy: str) -> None:
    """Let nobody but us write anything in ``tree``.

    Raises
    ------
    ForeignFileError
        If something in it belongs to neither us nor root, or others may go on writing it.
    """
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder), *(Path(folder) / name for name in (*folders, *files))):
            try:
                _take_away(path)
                if not trusted(path):
                    owner = user_name(path.lstat().st_uid)
                    raise ForeignFileError(f"{path} belongs to {owner}; {remedy}")
            except FileNotFoundError:  # removed meanwhile, by a process of ours
                continue


def _read_only(acl: bytes) -> bytes:
    """Return a POSIX access control list that lets nobody write but the owner.

    Where a directory has a default one, new files in it follow that and not the umask.
    """
    entries = [list(entry) for entry in struct.iter_unpack("<HHI", acl[4:])]  # tag, permissions, id
    for entry in entries[1:]:  # the owner's is the first
        entry[1] &= ~2
    return acl[:4] + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _take_away(path: Path) -> None:
    """Take from group and others the permission to write ``path``, if it is ours."""
    status = path.lstat()
    ours = status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode)
    if ours and status.st_mode & WRITABLE:
        path.chmod(stat.S_IMODE(status.st_mode) & ~WRITABLE)


def try_lock(descriptor: int, kind: int) -> bool | None:
    """Return whether the lock is held now; None: this file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOSYS, ENOLCK, EOPNOTSUPP
        return None
    return True


def locked_elsewhere(path: Path) -> bool | None:
    """Return whether another process has locked ``path``; None: nobody can tell."""
    try:
        with path.open("rb") as stream:
            held = try_lock(stream.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return None if held is None else not held


def refuse_locked(path: Path) -> None:
    """Raise OrchestraError if another program has ``path`` open for writing, as HDF5 locks it."""
    if locked_elsewhere(path):
        raise OrchestraError(
            f"{path} is open for writing in another program (such as a notebook); close it there"
        )


def is_cut_off(path: Path) -> bool:
    """Return whether a netCDF4 (HDF5) file is shorter than its own beginning says.

    So it is after a full disk or a broken copy, or if it is no such file at all. The place of the
    length depends on the version: HDF5 File Format Specification 3.0, II.A, "end of file address".
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(52)
    except OSError:  # such as somebody else's: nothing is known
        return False
    place = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8]) if head[:8] == b"\x89HDF\r\n\x1a\n" else None
    if place is None or len(head) < 52:
        return True
    return path.stat().st_size < int.from_bytes(head[place : place + 8], "little")


def sha256(text: str) -> str:
    """Return the SHA-256 of ``text`` as ``sha256sum`` prints it."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
    try:
        status = path.stat()
        return _file_sha256(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def _file_sha256(path: Path, _mtime: int, _size: int) -> str:
    # keyed by time and size: a file is hashed once per process, not twenty times
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_sha256(files: Iterable[Path], root: Path | None = None) -> str:
    """Return the SHA-256 of names and contents; names are relative to ``root``, if it is given."""
    digest = hashlib.sha256()
    for file in files:
        name = file.name if root is None else str(file.relative_to(root))
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
