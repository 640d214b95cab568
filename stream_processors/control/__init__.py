"""The control plane: what is low-rate and idempotent, on one Faust app. Each decision is a pure function in a module of
its own; `app.py` is the glue."""
