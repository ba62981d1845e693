"""From long videos to question - reasoning - answer rows: the data engine of LongVILA-R1."""
