# What follows the options: directories, and the command of `cgreap run`.
_cgreap_operands() {
    local word i start=0 command="" value="" only_operands=""
    local -a words=() starts=()
    # bash splits words at `=` too. Those before the cursor are put together again.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#words[@]})) && [[ $word == = || ${COMP_WORDS[i - 1]} == = ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word") starts+=("$i")
        fi
    done
    for i in "${!words[@]}"; do
        word=${words[i]}
        if [[ $value ]]; then
            value=""
        elif [[ ! $only_operands && $word == -- ]]; then
            only_operands=1
        elif [[ ! $only_operands && $word == -?* ]]; then
            case $word in OPTIONS_WITH_VALUES) value=1 ;; esac
        elif ((i == 0)) && [[ $word == @(run|sweep|demo) ]]; then
            command=$word
        elif [[ $command == run ]]; then
            start=${starts[i]}
            break
        fi
    done
    local cur=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    if ((start)); then
        # The command's own completion, where the package bash-completion is installed; else files.
        if declare -F _comp_command_offset >/dev/null; then
            _comp_command_offset "$start"
        elif declare -F _command_offset >/dev/null; then
            _command_offset "$start"
        fi
    elif [[ $value || $cur == = || ${COMP_WORDS[COMP_CWORD - 1]} == = || ! $only_operands && $cur == -?* ]]; then
        _cgreap "$@"
    elif [[ $command == run ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "$cur"; compgen -d -- "$cur")
        [[ $cur != */* ]] || compopt -o filenames
    elif [[ $command != demo ]]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        compopt -o filenames
        if ((${#words[@]} == 0)); then
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "run sweep demo" -- "$cur")
        fi
    fi
}

complete -F _cgreap_operands -o bashdefault -o default cgreap
