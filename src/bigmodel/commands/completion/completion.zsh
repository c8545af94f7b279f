# Completion of bigmodel-train and its sisters for zsh: eval "$(bigmodel-train --completion zsh)"
# A line of an answer begins with "+" where more is to be typed, else with a space; after a tab comes what it means.
_bigmodel_train_complete() {
    local line word
    local -a open open_shown whole whole_shown
    for line in ${(f)"$(@ASK@ "${(j: :)words[1,CURRENT-1]} ${QIPREFIX}${PREFIX}" </dev/null 2>/dev/null)"}; do
        word=${${line[2,-1]}%%$'\t'*}
        if [[ $line == +* ]]; then
            open+=($word) open_shown+=(${line[2,-1]/$'\t'/  -- })
        else
            whole+=($word) whole_shown+=(${line[2,-1]/$'\t'/  -- })
        fi
    done
    (( $#open )) && compadd -l -S '' -d open_shown -a open
    (( $#whole )) && compadd -l -d whole_shown -a whole
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
compdef _bigmodel_train_complete @COMMANDS@
