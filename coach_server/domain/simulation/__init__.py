"""Voice practice against an AI customer (seed 001): who the customer is, how the talk is supervised and ends,
and what counts as compliant. Pure: no clock, no network, no files."""
