"""How well linking works: who is evaluated, how they are linked, and a stack to do it on."""
