# A command is the first word.
_cgreap() {
    if ((CURRENT > 2)) && [[ $words[2] == (run|sweep|demo) ]]; then
        _cgreap_of_commands
        return
    fi
    if ((CURRENT == 2)) && [[ $words[CURRENT] != -?* ]]; then
        _cgreap_of_commands_commands
    fi
    _cgreap_of_targets
}

if [ "$funcstack[1]" = "_cgreap" ]; then
    _cgreap "$@"
else
    compdef _cgreap cgreap
fi
