# Completion for bash. The program itself is asked what there is, so that this file never falls behind it.
_dilmodeli() {
    local current=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} IFS=$'\n'
    local lines
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        lines=$("$program" --help=options 2>/dev/null | cut -f 1)
        COMPREPLY=($(compgen -W "$lines" -- "$current"))
        return
    fi
    if [[ $current == -* ]]; then
        lines=$("$program" "${COMP_WORDS[1]}" --help=options 2>/dev/null | cut -f 1)
        COMPREPLY=($(compgen -W "$lines" -- "$current"))
    elif [ "${COMP_WORDS[1]}" = help ]; then
        lines=$("$program" --help=options 2>/dev/null | cut -f 1)
        COMPREPLY=($(compgen -W "$lines" -- "$current"))
    else
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}
complete -F _dilmodeli dilmodeli
