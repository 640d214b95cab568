"""The answer: participants beside comparison families, from the enclave's tables to a page and tables.

`source` opens the tables and says who is compared, `outcomes` what is measured, `panel` counts it in DuckDB, `effects`
and `matching` estimate, `linkage` shows who could be linked. `draft` puts all of it before disclosure control; what
comes out of that is all that `charts`, `page` and `write` ever see.
"""
