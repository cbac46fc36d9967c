"""`python -m llmrec` is `llmrec`."""

from llmrec.cli import main

main()
