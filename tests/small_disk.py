"""Disks that fill up, for programs in processes of their own."""

import os
import resource
import shutil
import subprocess
import sys

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def limited(size):
    """No file may grow beyond so many bytes: what a full disk looks like to a program."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# A file system of 400 KB that only this process sees. What lies in the first folder is on it at the beginning, and what
# lies on it at the end is in that folder. 99: the machine lets nobody mount anything.
ON_A_SMALL_DISK = """
folder="$1" disk="$2" && shift 2
mkdir -p "$disk" && mount -t tmpfs -o size=400k small "$disk" || exit 99
cp -a "$folder/." "$disk"
"$@"
code=$?
rm -r "$folder" && cp -a "$disk" "$folder"
exit $code
"""


def on_a_small_disk(folder, disk, words):
    """Run a command that writes to `disk`, which begins as a copy of `folder`; `folder` is then what it came to."""
    sandbox = ["unshare", "--mount", "--map-root-user", "sh", "-c", ON_A_SMALL_DISK, "sh", str(folder), str(disk)]
    if shutil.which("unshare"):
        done = subprocess.run([*sandbox, *words], capture_output=True, env=ENVIRONMENT, check=False)
        if done.returncode != 99 and b"unshare:" not in done.stderr:
            return done
    shutil.rmtree(disk, ignore_errors=True)
    shutil.copytree(folder, disk)
    done = subprocess.run(words, capture_output=True, env=ENVIRONMENT, preexec_fn=limited(400 * 1024), check=False)
    shutil.rmtree(folder)
    disk.rename(folder)
    return done
