"""The built-in cohort: simulated patients, a data set like any other."""
