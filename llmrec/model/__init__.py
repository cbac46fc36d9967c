"""The language model: bases, tokens, the trie loss, training, adapters."""

from logging import getLogger

# PEFT imports it wherever it is installed, and it tells of a kernel for processors that it would fetch from a hub.
getLogger("bitsandbytes").setLevel("ERROR")
