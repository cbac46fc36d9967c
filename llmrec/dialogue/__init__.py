"""A conversation about a catalog: `grammar` reads a message, `state` keeps what is known, `reply` answers.

The grammar's words are in `words` and `years`, the catalog's in `vocabulary`; `cursor` looks at what stands where in a
message, and `query` is what comes out.

No model reads what a person writes: a message becomes a typed `Query`, and the exact ranking answers it.  So a reply
names only what the catalog holds, and nothing that is typed can become a control token.
"""
