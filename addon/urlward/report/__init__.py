"""Reports: tables and plots as one HTML page and JSON, of the lab and of replayed logs."""
