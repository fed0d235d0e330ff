# The first operand decides whether it is a command or the first of the targets.
_cgreap() {
    local -i at
    for ((at = 2; at < CURRENT; at++)); do
        case $words[at] in
            (OPTIONS_WITH_VALUES) ((at++)) ;;
            (--) break ;;
            (-?*) ;;
            (run|sweep|demo) _cgreap_of_commands; return ;;
            (*) break ;;
        esac
    done
    if ((at == CURRENT)) && [[ $words[CURRENT] != -?* ]]; then
        _cgreap_of_commands_commands
    fi
    _cgreap_of_targets
}

if [ "$funcstack[1]" = "_cgreap" ]; then
    _cgreap "$@"
else
    compdef _cgreap cgreap
fi
