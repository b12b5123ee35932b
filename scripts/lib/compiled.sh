# shellcheck shell=bash
# The package as `pip install` makes it: the modules that setup.py names are compiled.

COMPILED=$CACHE/compiled

# Takes half a minute when something has changed. Whatever is missing for it is installed.
make_compiled() {
    local sources=(setup.py setup.cfg pyproject.toml README.rst LICENSE mypaas_git) stamp
    stamp=$(find "${sources[@]}" -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum &&
        .venv/bin/python -VV)
    (
        flock 9 # two scripts in one clone
        [ "$(cat "$COMPILED/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
        need_compiler
        say "Compiling what reads packs (half a minute)"
        compile_package
        printf '%s\n' "$stamp" >"$COMPILED/stamp"
    ) 9>"$CACHE/compiled.lock"
}

# From a copy, as building leaves files beside the sources.
compile_package() {
    local copy=$CACHE/compiled.sources
    rm -rf "$COMPILED" "$copy"
    mkdir "$copy"
    cp -r "${sources[@]}" "$copy"
    quietly compiled env -u MYPAAS_PURE .venv/bin/python -m pip install -v --no-deps \
        --no-build-isolation --target "$COMPILED" "$copy"
    compgen -G "$COMPILED/mypaas_git__mypyc*.so" >/dev/null ||
        die "nothing was compiled: $(grep -m 1 'not compiled' "$LOGS/compiled.log")"
    rm -rf "$copy"
}

need_compiler() {
    need cc:gcc cc:libc6-dev
    .venv/bin/python -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        install_packages python3-dev
}
