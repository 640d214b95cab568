"""The enclave: the consumer that researchers use. It reads the research zone and nothing else."""
