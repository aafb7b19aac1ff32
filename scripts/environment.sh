#!/usr/bin/env bash
# Make or update the environment that every other target runs in: scripts/environment.sh [FOLDER=.venv]
# With uv when it is on the PATH, else with venv and pip; PYTHON names the interpreter to use.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-.venv}
oldest=$(sed -n 's/^min_python *= *//p' settings.ini)
newest=3.13  # on 3.14 the versions in constraints.txt exclude each other

fail() {
    printf 'environment: %s\n' "$*" >&2
    exit 1
}

suitable() {
    "$1" - "$oldest" "$newest" >/dev/null 2>&1 <<'END'
import sys
low, high = (tuple(map(int, version.split("."))) for version in sys.argv[1:])
sys.exit(not low <= sys.version_info[:2] <= high)
END
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || fail "PYTHON=$PYTHON is not Python $oldest to $newest"
        printf '%s\n' "$PYTHON"
        return
    fi
    # The frozen versions were tried on the oldest Python first, so that one is preferred to newer ones.
    for name in "python$oldest" python3.12 "python$newest" python3 python; do
        if suitable "$name"; then
            command -v "$name"
            return
        fi
    done
}

make_environment() {
    local python
    python=$(find_python)
    if command -v uv >/dev/null; then
        uv venv --quiet --seed --clear --python "${python:-$oldest}" "$folder"
        return
    fi
    [ -n "$python" ] || fail "Python $oldest to $newest is needed: install it, or name it with PYTHON=/path/to/python"
    # Debian and Ubuntu keep this module in a package of its own.
    "$python" -c "import ensurepip, venv" 2>/dev/null ||
        fail "$python cannot make environments: install its venv package (Debian, Ubuntu: apt-get install python3-venv) or uv"
    "$python" -m venv --clear "$folder"
}

install() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$folder/bin/python" "$@"
    else
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

if ! { suitable "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
    echo "environment: making $folder"
    make_environment
fi

rm -f "$folder/.ready"
echo "environment: installing ocr_sprint with all its extras into $folder; the first time takes minutes and 1.4 GB"
install -c constraints.txt -e '.[all,dev]'

# paddlex asks for the desktop OpenCV, whose Qt needs the system's libGL; the headless build lies over it in the same folder.
headless=$(grep '^opencv-contrib-python-headless==' constraints.txt) || fail "constraints.txt does not name the headless OpenCV"
install --no-deps --force-reinstall "$headless"
"$folder/bin/python" -c "import cv2"

touch "$folder/.ready"
echo "environment: $folder is ready"
