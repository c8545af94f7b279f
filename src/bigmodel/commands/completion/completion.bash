# Completion of bigmodel-train and its sisters for bash: eval "$(bigmodel-train --completion bash)"
# A line of an answer begins with "+" where more is to be typed, else with a space.
_bigmodel_train_complete() {
    local line open=
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line:1}")
        open=${line:0:1}
    done < <(@ASK@ "${COMP_LINE:0:COMP_POINT}" "$2" </dev/null 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && $open == + ]]; then compopt -o nospace; fi
}
complete -F _bigmodel_train_complete @COMMANDS@
