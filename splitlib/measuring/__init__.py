"""How long a batch, a stage and a codec take: measured in turn, kept as records."""
