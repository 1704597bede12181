"""Studies: what trained runs are worth.  Every study measures runs and gives a result that saves, loads and reports."""
