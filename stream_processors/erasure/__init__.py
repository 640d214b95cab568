"""Who is to be erased, and refused from then on: orders, the entries that follow from them, and what is found by them.

`order` (the operator's side seals) -> pseudonymise (`eraser`): tombstones at the source, and entries of
`linkage.suppression` (`suppression`), which it reads back and refuses by. See ADR 20.
"""
