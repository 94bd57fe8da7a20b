"""Table 1 of the paper: thirteen methods over labelled sets and seeds, from a plan of jobs to the table."""
