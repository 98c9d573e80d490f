# Completion for fish. The program itself is asked what there is, so that this file never falls behind it.
function __dilmodeli_options
    set -l words (commandline -opc)
    if test (count $words) -ge 2
        $words[1] $words[2] --help=options 2>/dev/null | while read -l line
            set -l parts (string split \t -- $line)
            printf '%s\t%s\n' $parts[1] $parts[3]
        end
    end
end
complete -c dilmodeli -n __fish_use_subcommand -f -a '(dilmodeli --help=options 2>/dev/null)'
complete -c dilmodeli -n 'not __fish_use_subcommand; and string match -q -- "-*" (commandline -ct)' -a '(__dilmodeli_options)'
