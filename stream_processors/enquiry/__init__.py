"""Is this person's data held? How a council's question travels, one module for each stage.

`person` and `seal` (the council's side) -> control plane -> `opening` (pseudonymise: tokens) -> `seeking` (link:
references) -> `finding` (join: counts) -> control plane. Nobody sees more for it than before.
"""
