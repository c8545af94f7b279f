# Completion of bigmodel-train and its sisters for fish: bigmodel-train --completion fish | source
function __bigmodel_train_complete
    @ASK@ (commandline -cp | string collect) </dev/null 2>/dev/null
end
for command in @COMMANDS@
    complete -c $command -f -a '(__bigmodel_train_complete)'
end
