"""A tiny image for tests: a shell, a few tools and the native ALF, copied from this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from bilayer_orchestra.engines.base import ENGINE_LABEL
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.images.use import HOLDS, PACKAGE, container_command, recipe_of

TOOLS = (
    *("sh", "cat", "cksum", "cmp", "cp", "date", "env", "grep", "ls", "mkdir", "mv", "rm", "sed"),
    *("setpriv", "sleep", "tail", "touch", "wc", "id"),
)


def missing_containers() -> str | None:
    """Return why no container can be started here, or None."""
    try:
        command = container_command()
    except MissingEngineError as error:
        return str(error)
    if shutil.which("mksquashfs") is None:
        return "mksquashfs is missing: apt install squashfs-tools"
    prepare_environment()
    probe = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"{command} --version fails: {probe.stderr}"


def prepare_environment() -> None:
    """Let a root without CAP_SYS_RESOURCE start containers."""
    status = Path("/proc/self/status").read_text()
    effective = int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16)
    if os.geteuid() == 0 and not effective >> 24 & 1:
        os.environ.setdefault("APPTAINER_DROP_CAPS", "CAP_SYS_RESOURCE")


def tiny_image(folder: Path, alf: Path, label: str) -> Path:
    """Build an image that holds ``alf`` under the contract of containers/alf.def."""
    root = folder / "rootfs"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "root", "opt", "var/tmp", "lib64"):
        (root / name).mkdir(parents=True)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        _copy_program(Path(found), root / "bin" / tool, root)
    _copy_program(alf, root / "opt" / "ALF.out", root)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    meta = root / ".singularity.d"
    (meta / "env").mkdir(parents=True)
    labels = {ENGINE_LABEL: label, HOLDS: "alf", PACKAGE: recipe_of("alf").own_hash()}
    (meta / "labels.json").write_text(json.dumps(labels))
    (meta / "env" / "90-environment.sh").write_text(
        "#!/bin/sh\nexport ORCHESTRA_ALF=/opt/ALF.out\nexport OMP_NUM_THREADS=1\n"
    )
    image = folder / "tiny.sif"
    words = [container_command(), "build", str(image), str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return image


def _copy_program(source: Path, target: Path, root: Path) -> None:
    shutil.copy2(source.resolve(), target)
    target.chmod(0o755)
    listed = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=False)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        copy = root / library.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy2(Path(library).resolve(), copy)
