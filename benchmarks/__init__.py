"""What is measured against what; ``make bench`` runs it and writes the table in README.md."""
