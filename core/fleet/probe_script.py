"""Asks a host, in one round trip, everything that adding it and the pre-flight check need to know.

A POSIX shell script goes to ``/bin/sh -s`` on its standard input, so nothing of ours has to be on the host. Each answer
is a line that starts with a random mark; whatever a login shell prints around it is dropped. The script changes
nothing, except that it tries to write one empty file into the work folder when that exists, and removes it.
``core.fleet.host_facts`` makes records of the lines.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from core.contracts.errors import EnvironmentProblem
from core.contracts.links import Link
from core.fleet.host_facts import HostFacts, facts_of

LIMIT_S = 60.0

# Runs under dash, bash, ksh and busybox. Every command reads /dev/null: the script itself is on the shell's input.
# `limit` bounds what is known to hang: nvidia-smi on a broken GPU, names that do not resolve, dead network mounts.
SCRIPT = r"""
say() { printf '%s %s\t%s\n' "$mark" "$1" "$2"; }
lines() { while IFS= read -r line; do say "$1" "$line"; done; }
has() { command -v "$1" >/dev/null 2>&1; }
limit() { if has timeout; then timeout "$@"; else shift; "$@"; fi; }
existing() {
  found=$1
  while [ ! -e "$found" ] && [ "$found" != / ] && [ "$found" != . ]; do found=$(dirname -- "$found"); done
}
disk() {
  existing "$2"
  say "$1.disk" "$(limit 10 df -Pk -- "$found" 2>/dev/null | tail -n 1)"
  say "$1.fs" "$(limit 10 stat -f -c %T -- "$found" 2>/dev/null)"
}
machine() {
  say user "$(id -un 2>/dev/null)"
  say home "$HOME"
  say hostname "$(uname -n)"
  say kernel "$(uname -s) $(uname -r)"
  say arch "$(uname -m)"
  say os "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d '"')"
  say libc "$(getconf GNU_LIBC_VERSION || { has ldd && ldd --version 2>&1 | head -n 1; })"
  say cpus "$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null)"
  lines meminfo < /proc/meminfo
  say memory_limit "$(cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null)"
  lines limits < /proc/self/limits
  [ -d /dev/shm ] && disk shm /dev/shm
  say kill_user_processes "$(cat /etc/systemd/logind.conf /etc/systemd/logind.conf.d/*.conf 2>/dev/null | sed -n 's/^ *KillUserProcesses *= *//p' | tail -n 1)"
  [ -e "/var/lib/systemd/linger/$(id -un 2>/dev/null)" ] && say linger yes
}
folders() {
  case "$work" in '~') work=$HOME ;; '~/'*) work=$HOME/${work#'~/'} ;; esac
  disk work "$work"
  if [ -d "$work" ]; then
    say work.exists yes
    if ( : > "$work/.pilothouse-probe.$$" ) 2>/dev/null; then say work.writable yes; rm -f -- "$work/.pilothouse-probe.$$"; fi
  elif [ -d "$found" ] && [ -w "$found" ] && [ -x "$found" ]; then
    say work.writable yes
  fi
  number=0
  for path; do
    case "$path" in '~/'*) path=$HOME/${path#'~/'} ;; esac
    if [ -r "$path" ]; then say "path.$number.readable" yes; elif [ -e "$path" ]; then say "path.$number.exists" yes; fi
    disk "path.$number" "$path"
    number=$((number + 1))
  done
}
pythons() {
  seen=:
  IFS='
'
  for candidate in $(for n in 3.14 3.13 3.12 3.11 3 ''; do command -v "python$n" 2>/dev/null; done) \
    "$HOME"/.local/bin/python3.1[1-4] /usr/local/bin/python3.1[1-4] \
    /opt/conda/bin/python "$HOME"/miniconda3/bin/python "$HOME"/miniforge3/bin/python "$HOME"/anaconda3/bin/python \
    "$HOME"/.local/share/uv/python/*/bin/python3 "$HOME"/.pyenv/versions/*/bin/python; do
    [ -x "$candidate" ] || continue
    case "$seen" in *":$candidate:"*) continue ;; esac
    seen="$seen$candidate:"
    said=$(limit 10 "$candidate" -I -c 'import sys; print("%d.%d.%d %s" % (sys.version_info[:3] + (sys.executable,)))') && say python "$said"
  done
  for tool in uv conda mamba micromamba apptainer singularity docker bash curl; do
    where=$(command -v "$tool" 2>/dev/null) && say "tool.$tool" "$where"
  done
  unset IFS
  [ -x "$HOME/.local/bin/uv" ] && say tool.uv "$HOME/.local/bin/uv"
  lines conda_env < "$HOME/.conda/environments.txt"
}
accelerators() {
  if has nvidia-smi; then
    say nvidia.head "$(limit 15 nvidia-smi 2>&1 | sed -n '1,4p' | tr '\n' ' ')"
    limit 15 nvidia-smi --query-gpu=index,uuid,memory.total,memory.used,driver_version,name --format=csv,noheader,nounits | lines nvidia.gpu
    limit 15 nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name --format=csv,noheader,nounits | while IFS= read -r line; do
      pid=$(printf '%s' "$line" | cut -d, -f2 | tr -d ' ')
      run=$(tr '\0' '\n' < "/proc/$pid/environ" | sed -n 's/^PILOTHOUSE_RUN=//p')
      say nvidia.process "$line, $(ps -o user= -p "$pid" 2>/dev/null)|$run"
    done
  fi
  for vendor in /sys/class/drm/card*/device/vendor; do [ -r "$vendor" ] && say drm "$(cat "$vendor") ${vendor%/device/vendor}"; done
  [ -r /opt/rocm/.info/version ] && say rocm "$(cat /opt/rocm/.info/version)"
  [ -e /dev/nvidiactl ] && say nvidia.device yes
}
network() {
  if has ip; then ip -o addr show | lines address; else say addresses "$(hostname -I 2>/dev/null)"; fi
  index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-}}
  [ -n "$index" ] || index=$(cat "$HOME/.config/uv/uv.toml" /etc/uv/uv.toml 2>/dev/null | sed -n 's/^ *\(index-url\|url\) *= *"\(.*\)".*/\2/p' | head -n 1)
  [ -n "$index" ] && say index.is_uv yes
  [ -n "$index" ] || index=${PIP_INDEX_URL:-}
  [ -n "$index" ] || index=$(cat "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" /etc/pip.conf 2>/dev/null | sed -n 's/^ *index[-_]url *= *//p' | head -n 1)
  index=${index:-https://pypi.org/simple}
  say index "$index"
  index=${index%/}/pip/
  case "$index" in
    file://*) [ -d "${index#file://}" ] && say index.answers 200 ;;
    *)
      if has curl; then say index.answers "$(limit 8 curl -sSL -m 6 -o /dev/null -w '%{http_code}' -- "$index" 2>/dev/null)"
      elif has wget; then limit 8 wget -q -T 6 -O /dev/null -- "$index" && say index.answers 200
      elif has python3; then
        say index.answers "$(limit 8 python3 -I -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=6).status)' "$index" 2>/dev/null)"
      fi ;;
  esac
}
cluster() {
  for tool in sinfo sbatch squeue sacct scontrol; do has "$tool" && say "slurm.$tool" yes; done
  has sbatch && say slurm.version "$(limit 8 sbatch --version 2>/dev/null)"
  has sinfo && limit 8 sinfo -h -o '%P %a %D %G' | lines slurm.partition
}
main() {
  mark=$1 work=$2
  shift 2
  say start "$(date +%s.%N)"
  machine
  folders "$@"
  pythons
  accelerators
  network
  cluster
  say end "$(date +%s.%N)"
}
main "$@" </dev/null 2>/dev/null
"""


def probe_host(link: Link, work_dir: str, paths: Sequence[str] = ()) -> HostFacts:
    """Ask a host about itself; takes a second or two there.

    Args:
        link: The connection.
        work_dir: The host's work folder as its record has it; ``~`` is the user's home there.
        paths: Files and folders that a run would read there; see ``HostFacts.paths``.

    Raises:
        EnvironmentProblem: The link is lost, or the host has no usable POSIX shell.
    """
    mark = f"@{secrets.token_hex(8)}"
    before = time.time()
    done = link.run(
        ["/bin/sh", "-s", mark, work_dir, *paths], stdin=SCRIPT.encode(), timeout_s=LIMIT_S, limit_bytes=1 << 20
    )
    after = time.time()
    facts = facts_of(done.stdout, mark, work_dir=work_dir, paths=paths, asked_between=(before, after))
    if facts is None:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise EnvironmentProblem(
            f"{link.name} answers, but cannot run a shell script" + (f": {said}." if said else "."),
            "Pilothouse needs a Linux host with /bin/sh, and an account that may run commands (not only SFTP).",
        )
    return facts
