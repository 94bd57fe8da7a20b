"""Table 1 of the paper: the methods over labelled sets and seeds, from a plan of jobs to the table."""
