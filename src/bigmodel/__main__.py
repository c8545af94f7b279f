"""`python -m bigmodel train …` is `bigmodel-train …`."""

from bigmodel.cli import main

if __name__ == "__main__":
    main()
