# Sourced: what a script needs of the machine.
#
#   need cargo cc python pip
#
# names everything that is missing, each in one line, and exits. As root on
# Debian what Debian has is installed instead.

has() {
    case $1 in
        cargo) command -v cargo ;;
        cc) command -v cc ;;
        python) command -v python3 ;;
        pip) python3 -m pip --version ;;
        venv) python3 -c 'import ensurepip, venv' ;;
        node) command -v node && command -v npm ;;
        chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    esac >/dev/null 2>&1
}

packages_of() {
    case $1 in
        cc) echo build-essential ;;
        python) echo python3 ;;
        pip) echo python3-pip ;;
        venv) echo python3-venv ;;
        node) echo nodejs npm ;;
        chromium) echo chromium ;;
    esac
}

name_of() {
    case $1 in
        cargo) echo "Rust (cargo)" ;;
        cc) echo "a C compiler (cc)" ;;
        python) echo "Python 3 (python3)" ;;
        pip) echo "Python's pip (python3 -m pip)" ;;
        venv) echo "Python's venv module" ;;
        node) echo "Node.js with npm" ;;
        chromium) echo "Chromium" ;;
    esac
}

say() {
    echo "tenantry: $*" >&2
}

need() {
    local thing packages lacking=0 install=()
    for thing in "$@"; do
        has "$thing" && continue
        packages=$(packages_of "$thing")
        if [ -z "$packages" ]; then
            say "missing: $(name_of "$thing"); install it from https://rustup.rs"
            lacking=1
        elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            # shellcheck disable=SC2206 # One word a package.
            install+=($packages)
        else
            say "missing: $(name_of "$thing"); on Debian: sudo apt-get install $packages"
            lacking=1
        fi
    done
    [ "$lacking" = 0 ] || exit 1
    [ "${#install[@]}" = 0 ] && return
    say "installing by apt-get: ${install[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${install[@]}"; } >&2 </dev/null; then
        say "apt-get could not install: ${install[*]}"
        exit 1
    fi
}
