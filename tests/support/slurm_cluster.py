"""A real Slurm of one or more nodes on this machine, for the tests; as root, gone afterwards.

By hand, a command with the cluster up: ``python tests/support/slurm_cluster.py DIR NODES COMMAND``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

#: Debian keeps the daemons where users do not look.
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")


def missing_slurm() -> str | None:
    """Return why no cluster can be started here, or None."""
    absent = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{', '.join(absent)} missing: apt install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "the daemons of a test cluster need root"
    return None


class Cluster:
    """Start and stop munged, slurmctld and one slurmd per node, all with files in ``root``."""

    def __init__(self, root: Path, nodes: int = 1, cpus: int = 2) -> None:
        self.root, self.nodes, self.cpus = root, nodes, cpus
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ,
            "PATH": _PATH,
            "SLURM_CONF": str(root / "slurm.conf"),
            "USER": "root",
        }

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        munge = Path(f"/run/orchestra-munge-{os.getpid()}")
        munge.mkdir(exist_ok=True)
        munge.chmod(0o755)
        self.munge = munge
        key = munge / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._write_configuration(munge / "socket")
        self._daemon(
            "munged",
            *("munged", "--foreground", "--force", f"--key-file={key}"),
            *(f"--socket={munge / 'socket'}", f"--pid-file={munge / 'pid'}"),
            *(f"--log-file={munge / 'log'}", f"--seed-file={munge / 'seed'}"),
        )
        self._wait_for((munge / "socket").exists, "munged")
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for k in range(self.nodes):
            self.start_node(k)
        self._wait_for(self._idle, "slurmctld and slurmd")

    def start_node(self, k: int) -> None:
        """Start the daemon of one node."""
        for name in (f"spool-n{k}", f"tmp-n{k}"):  # one node's MPI ranks must not meet the other's
            (self.root / name).mkdir(exist_ok=True)
        self._daemon(f"slurmd-{k}", "slurmd", "-D", "-N", f"n{k}")

    def kill_node(self, k: int) -> None:
        """Take one node down: its daemon and everything it started."""
        self.run("scontrol", "update", f"NodeName=n{k}", "State=DOWN", "Reason=test")
        self._end(self.daemons.pop(f"slurmd-{k}"), signal.SIGKILL)

    def stop_controller(self) -> None:
        """Take the scheduler away."""
        self._end(self.daemons.pop("slurmctld"), signal.SIGTERM)

    def run(self, *words: str) -> str:
        """Run a command of the scheduler; return its output."""
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def wait_until_empty(self, seconds: float = 120) -> None:
        """Wait until no job is left in the queue."""
        end = time.monotonic() + seconds
        while self.run("squeue", "--noheader").strip():
            if time.monotonic() > end:
                raise TimeoutError(self.run("squeue"))
            time.sleep(0.5)

    def stop(self) -> None:
        """End every process of the cluster."""
        if "slurmctld" in self.daemons:
            subprocess.run(
                ["scancel", "--user=root", "--signal=KILL", "--full"],
                env=self.environment,
                capture_output=True,
                check=False,
                timeout=30,
            )
        for name in sorted(self.daemons, key=lambda name: name == "munged"):
            self._end(self.daemons[name], signal.SIGTERM)
        self.daemons.clear()
        shutil.rmtree(getattr(self, "munge", "/nonexistent"), ignore_errors=True)

    def _write_configuration(self, munge_socket: Path) -> None:
        host = socket.gethostname()
        ports = _free_ports(self.nodes + 1)
        (self.root / "state").mkdir(exist_ok=True)
        memory = 4000
        nodes = "\n".join(
            f"NodeName=n{k} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[k + 1]} "
            f"CPUs={self.cpus} RealMemory={memory} State=UNKNOWN"
            for k in range(self.nodes)
        )
        (self.root / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={munge_socket},cred_expire=5
StateSaveLocation={self.root}/state
SlurmdSpoolDir={self.root}/spool-%n
TmpFS={self.root}/tmp-%n
SlurmctldPidFile={self.root}/slurmctld.pid
SlurmdPidFile={self.root}/slurmd-%n.pid
SlurmctldLogFile={self.root}/slurmctld.log
SlurmdLogFile={self.root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MessageTimeout=10
SlurmdTimeout=20
InactiveLimit=0
MinJobAge=300
SwitchType=switch/none
MpiDefault=none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
        )

    def _daemon(self, name: str, *words: str) -> None:
        with (self.root / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                words,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.root,
            )

    @staticmethod
    def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _idle(self) -> bool:
        try:
            return self.run("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * self.nodes
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False

    def _wait_for(self, condition, what: str) -> None:
        end = time.monotonic() + 30
        while not condition():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "".join(
                    p.read_text(errors="replace")[-800:] for p in self.root.glob("*.out")
                )
                raise RuntimeError(f"{what} does not start ({dead}): {logs}")
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as with any other end: clean up
    with Cluster(Path(sys.argv[1]).absolute(), int(sys.argv[2])) as cluster:
        code = subprocess.run(sys.argv[3:], env=cluster.environment, check=False).returncode
    sys.exit(code)
