"""Shell completion: what could follow on a command line, for bash, zsh and fish. Nothing typed is executed."""
