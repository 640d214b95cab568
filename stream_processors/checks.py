"""What must hold before a worker starts: the registry's schemas are this code's contracts."""

from __future__ import annotations

from schemas import contracts
from schemas.registry import SchemaIds
from stream_processors.runtime.processor import Declaration


def check_schemas(declaration: Declaration, schema_ids: SchemaIds) -> None:
    """Hold what is registered for every topic that a processor reads or writes to the contract in the code.

    Topics of suppliers are checked when their first record is met.

    Raises:
        SchemaNotRegisteredError: a topic has none.
        SchemaDriftError: another schema is registered.
    """
    for topic in {*declaration.reads, *declaration.writes}:
        if "*" not in topic:
            schema_ids.check(topic, contracts.contract(topic.replace(".", "/")))
