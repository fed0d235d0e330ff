# A command is the first word.
function __fish_cgreap_needs_command
    set -l words (commandline -opc)
    set -q words[2]
    or return 0
    echo $words[2]
    return 1
end

# What follows the options: directories, and the command of `cgreap run`.
function __fish_cgreap_names_targets
    not __fish_cgreap_using_subcommand run sweep demo
end

complete -c cgreap -n __fish_cgreap_names_targets -f -a '(__fish_complete_directories)'
complete -c cgreap -n '__fish_cgreap_using_subcommand sweep' -f -a '(__fish_complete_directories)'
complete -c cgreap -n '__fish_cgreap_using_subcommand run' -f -a '(__fish_complete_subcommand --fcs-skip=2 -- OPTIONS_WITH_VALUES)'
