# Shell functions that the scripts of qemu/ and benches/ share. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail

# Where everything that takes long to make is kept; removing it is always safe.
cache=${IMA_INIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ima-init}

# say TEXT...: a line for the person who watches. Standard output is kept for results.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die TEXT...: say what went wrong and what to do, and stop.
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# seconds_text N: 75 becomes 1:15.
seconds_text() {
    printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# progress TITLE LOG COMMAND...: run COMMAND with all its output in the file LOG. On a terminal one line shows the time
# taken, how many lines were written and the last of them; otherwise a line a half minute. When the command fails, the
# end of the log is shown and the status returned.
progress() {
    local title=$1 log=$2
    shift 2
    mkdir -p "$(dirname "$log")"
    local start=$SECONDS status=0
    [[ -t 2 ]] || say "$title ..."
    # The status is the command's: pipefail is set, and the reading end does not fail.
    "$@" 2>&1 | progress_lines "$title" "$log" "$start" || status=$?
    [[ -t 2 ]] && printf '\r\033[K' >&2
    if ((status)); then
        tail -n 30 "$log" | sed 's/^/    /' >&2
        say "$title failed; the whole output is in $log"
        return "$status"
    fi
    say "$title: done in $(seconds_text $((SECONDS - start)))"
}

# The reading end of `progress`.
progress_lines() {
    local title=$1 log=$2 start=$3 line='' last='' lines=0 shown=$SECONDS columns=${COLUMNS:-80} status
    : >"$log"
    while true; do
        status=0
        IFS= read -r -t 1 line || status=$?
        if ((status == 0)); then
            printf '%s\n' "$line" >&3
            last=$line
            lines=$((lines + 1))
        elif ((status > 128)); then
            # A second without output. What was read of an unfinished line is a prompt or a progress bar of its own.
            [[ -z $line ]] || last=$line
            printf '%s' "$line" >&3
        else
            printf '%s' "$line" >&3
            break
        fi
        if [[ -t 2 ]]; then
            # At most a redraw a second but for the first lines: drawing costs more than reading.
            if ((SECONDS != shown || lines < 3)); then
                line="$title  $(seconds_text $((SECONDS - start)))  [$lines] ${last//[^[:print:]]/ }"
                printf '\r\033[K%s' "${line:0:columns-1}" >&2
                shown=$SECONDS
            fi
        elif ((SECONDS - shown >= 30)); then
            say "$title: $(seconds_text $((SECONDS - start))), $lines lines: ${last:0:60}"
            shown=$SECONDS
        fi
    done 3>>"$log"
    return 0
}

# need_packages PACKAGE...: install those Debian packages that are missing, as root; name the command otherwise.
need_packages() {
    local missing=() package
    for package; do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        die "Debian packages are missing; install them with: sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    command -v apt-get >/dev/null || die "this needs Debian 12, or these programs' packages: ${missing[*]}"
    progress "package lists" "$cache/log/apt-update" apt-get update
    progress "installing ${#missing[@]} packages" "$cache/log/apt-install" \
        env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# key_of: a name for what standard input describes; what is made from it is cached under that name.
key_of() {
    sha256sum | cut -c1-16
}

# locked FILE COMMAND...: one at a time; a second one says that it waits.
locked() {
    local file=$1
    shift
    mkdir -p "$(dirname "$file")"
    (
        flock -n 9 || {
            say "waiting for another one that is making the same"
            flock 9
        }
        "$@" 9>&-
    ) 9>"$file"
}
